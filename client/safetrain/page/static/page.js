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
