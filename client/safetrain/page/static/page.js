// What the page needs beside htmx: Trusted Types, files sent as they are, the state of the link.
"use strict";

htmx.registerExtension("safetrain", {
  init(api) {
    // Only htmx may make elements of text, of what our own server rendered and escaped. Nothing is
    // ever made a script or evaluated.
    const refuse = function () { throw new Error("scripts are not evaluated on this page"); };
    const policy = window.trustedTypes?.createPolicy("htmx", { createHTML: (text) => text });
    api.initSecurity(policy ?? { createHTML: (text) => text, createScript: refuse }, refuse, refuse);
  },

  // A dropped file is the body of its request, so that the server never holds it in memory.
  htmx_before_request(element, { ctx }) {
    const named = element.dataset?.raw, file = element.files?.[0];
    if (!named || !file) return;
    ctx.request.body = file;
    ctx.request.headers[named] = encodeURIComponent(file.name);
    ctx.request.headers["Content-Type"] = "application/octet-stream";
  },
});

// Writing the name of another model chooses it.
document.addEventListener("input", ({ target }) => {
  const radio = target.closest(".choice")?.querySelector("input[type=radio]");
  if (radio) radio.checked = true;
});

// A page that was left open while the dashboard was ended says so, and goes on when it is back.
function link(state) {
  const shown = document.getElementById("link");
  shown.dataset.state = state;
  const text = state === "live" ? "" : shown.dataset[state] ?? "";
  if (shown.textContent !== text) shown.textContent = text;
}
document.addEventListener("htmx:sse:error", () => link("gone"));
document.addEventListener("htmx:error", () => link("gone"));
document.addEventListener("link", (event) => link(event.detail.data));

// Enter asks; Shift+Enter begins a new line. A form that asks is emptied for the next question.
document.addEventListener("keydown", (event) => {
  const asks = event.target.matches("[data-enter]") && event.key === "Enter";
  if (!asks || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});
document.addEventListener("htmx:before:request", ({ target }) => {
  if (!target.matches("[data-clear]")) return;
  target.querySelector("textarea").value = "";
  document.getElementById("forgotten").textContent = "";
});
document.addEventListener("click", ({ target }) => {
  if (!target.matches("[data-stop], [data-anew]")) return;
  target.form.dispatchEvent(new Event("htmx:abort"));
  if (target.dataset.anew) return forget(target);
  const state = [...document.querySelectorAll("[data-stopped]")].at(-1);
  if (state) state.textContent = state.dataset.stopped;
});

// The page alone holds what was said: without it the next question begins a conversation.
function forget(button) {
  for (const name of ["answers", "said"]) document.getElementById(name).replaceChildren();
  document.getElementById("forgotten").textContent = button.dataset.anew;
  button.form.elements.question.focus();
}
// The newest of a conversation stays in sight.
document.addEventListener("htmx:after:swap", () => {
  const answers = document.getElementById("answers");
  if (answers && !answers.contains(document.activeElement)) answers.scrollTop = answers.scrollHeight;
});

// A waiting job that is dropped on another takes its place, by its own button.
let dragged = null;
document.addEventListener("dragstart", ({ target }) => { dragged = target.closest?.(".waiting"); });
document.addEventListener("dragover", (event) => {
  if (dragged && event.target.closest?.(".waiting")) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  const place = dragged && event.target.closest?.(".waiting")?.dataset.place;
  const button = dragged?.querySelector("[name=place]");
  dragged = null;
  if (!place || !button) return;
  event.preventDefault();
  button.value = place;
  button.click();
});

// Notifications of the browser, for whoever asked for them.
const notify = document.getElementById("notify");
if (notify && "Notification" in window) {
  notify.hidden = Notification.permission !== "default";
  notify.addEventListener("click", async () => {
    notify.hidden = await Notification.requestPermission() !== "default";
  });
  document.addEventListener("htmx:after:swap", () => {
    for (const told of document.querySelectorAll("#told [data-told]")) {
      if (Notification.permission === "granted" && document.hidden) new Notification(told.textContent);
      delete told.dataset.told;
    }
  });
}
