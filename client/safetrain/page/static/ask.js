// The form for questions. Questions and answers are kept in this page only.

import { at, make, say } from "./dom.js";

let running = null; // the AbortController of the question being answered

// `words`: returns the texts; `job`: returns the selected job, 0 without one.
export function listen(words, job) {
  const form = at("ask"), question = at("question");
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  at("stop").addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = question.value.trim();
    if (!text || running) return;
    question.value = "";
    const exchange = begin(text, words());
    busy(true);
    try {
      await answer({ question: text, base: at("base").checked, job: job() }, exchange, words());
    } catch (error) {
      say(exchange.state, error.name === "AbortError" ? words().stopped : words().gone);
    }
    busy(false);
    question.focus();
  });
}

function begin(text, words) {
  const exchange = {
    answer: make("p", { class: "answer" }),
    state: make("p", { class: "hint" }, `${words.asking} …`),
  };
  at("answers").append(make("div", { class: "exchange" },
    make("p", { class: "question" }, text), exchange.answer, exchange.state));
  exchange.state.scrollIntoView({ block: "nearest" });
  return exchange;
}

function busy(on) {
  running = on ? new AbortController() : null;
  at("stop").hidden = !on;
  at("send").disabled = on;
}

async function answer(body, exchange, words) {
  const response = await fetch(`/api/ask?lang=${words.lang}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: running.signal,
  });
  const lines = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await lines.read();
    const parts = (rest + (value ?? "")).split("\n");
    rest = done ? "" : parts.pop();
    for (const part of parts.filter(Boolean)) take(JSON.parse(part), exchange);
    if (done) return;
  }
}

function take(piece, { answer, state }) {
  if (piece.text) answer.append(piece.text);
  if (piece.waiting) say(state, `${piece.waiting} …`);
  if (piece.source) say(state, piece.source);
  if (piece.done) say(state, `${state.textContent} · ${piece.done}`);
  if (piece.error) {
    say(state, piece.error);
    state.classList.add("failed");
  }
}
