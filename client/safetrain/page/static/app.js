// The page: opens the live stream and renders its events.

import { listen } from "./ask.js";
import { Chart } from "./chart.js";
import { at, make, say } from "./dom.js";
import { decimal, number, percent, size, speak } from "./format.js";

const GIB = 2 ** 30;
const charts = {
  loss: new Chart(at("chart-loss"), { height: 260, write: loss }),
  memory: new Chart(at("chart-memory"), { height: 180, write: size, fromZero: true, base: GIB }),
  rate: new Chart(at("chart-rate"), { height: 180, write: rate, fromZero: true }),
};

function loss(value, step = 0.001) {
  return decimal(value, Math.max(1, Math.ceil(-Math.log10(step) - 1e-9)));
}

function rate(value) {
  return number(Number(value.toPrecision(3)));
}

let words = {};
let curves = null;
let source = null;

const remembered = () => {
  try { return localStorage.getItem("lang") ?? ""; } catch { return ""; }
};
const picked = () => Number(/^#job=(\d+)$/.exec(location.hash)?.[1] ?? 0);

function open() {
  source?.close();
  source = new EventSource(`/api/live?lang=${remembered()}&job=${picked() || ""}`);
  const on = (name, take) =>
    source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  on("words", translate);
  on("link", ({ trouble }) => link(trouble ? "away" : "live"));
  on("overview", overview);
  on("log", log);
  on("curves", (news) => { curves = news; paint(); });
  source.addEventListener("error", () => link("gone"));
}

function link(state) {
  at("link").dataset.state = state;
  say(at("link"), words[state] ?? "");
}

function translate(news) {
  words = news;
  speak(words.lang);
  document.documentElement.lang = words.lang;
  for (const element of document.querySelectorAll("[data-t]")) say(element, words[element.dataset.t]);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = words[element.dataset.placeholder];
  }
  for (const button of document.querySelectorAll("[data-lang]")) {
    button.setAttribute("aria-pressed", String(button.dataset.lang === words.lang));
  }
  link(at("link").dataset.state ?? "live");
  paint();
}

function overview({ jobs, chosen, about }) {
  at("page").hidden = false;
  at("empty").hidden = Boolean(chosen);
  for (const id of ["job", "queue", "history", "about-job"]) at(id).hidden = !chosen;
  say(at("about"), about);
  list(jobs, chosen?.id);
  if (chosen) hero(chosen);
  else document.title = "safetrain";
}

function hero(job) {
  const done = percent(job.share);
  document.title = `${job.progress ? `${done} · ` : ""}${job.title} · safetrain`;
  say(at("title"), job.title);
  say(at("state"), job.label);
  at("state").dataset.state = job.state;
  say(at("doing"), job.doing);
  say(at("why"), job.why);
  at("why").hidden = !job.why;
  const bar = at("bar");
  bar.parentElement.hidden = !job.progress;
  bar.dataset.state = job.state;
  bar.setAttribute("aria-valuenow", Math.floor(100 * job.share));
  bar.setAttribute("aria-valuetext", job.progress);
  bar.firstElementChild.style.inlineSize = `${100 * job.share}%`;
  say(at("percent"), done);
  say(at("progress"), job.progress);
  const figures = Object.values(job.figures).filter(({ value }) => value);
  at("figures").replaceChildren(...figures.map(figure));
  at("figures").hidden = !figures.length;
  at("facts").replaceChildren(...job.facts.map(fact));
  at("next").replaceChildren(...job.next.map(([label, command]) =>
    fact([label, make("code", {}, command)])));
  at("next").hidden = !job.next.length;
  at("retry").hidden = !job.retry;
  at("retry").value = job.id;
  see();
}

function fact([label, value]) {
  return make("div", {}, make("dt", {}, label), make("dd", {}, value));
}

async function retry(event) {
  const button = event.currentTarget;
  button.disabled = true;
  try {
    const response = await fetch(`/api/retry?lang=${words.lang}`, {
      method: "POST", body: JSON.stringify({ job: Number(button.value) }),
    });
    const { error } = await response.json();
    if (error) say(at("why"), error);
    else button.hidden = true;
  } catch {
    link("gone");
  }
  button.disabled = false;
}

// Which job's data is shown, so that another job's is asked for anew.
let seen = 0;

async function see() {
  const job = Number(at("retry").value);
  if (!at("seen").open || seen === job) return;
  seen = job;
  at("samples").replaceChildren(make("p", { class: "hint" }, "…"));
  try {
    const response = await fetch(`/api/preview?lang=${words.lang}`, {
      method: "POST", body: JSON.stringify({ job }),
    });
    const { samples, lengths, error } = await response.json();
    const shown = (samples ?? []).map((pieces) => make("pre", { tabindex: 0 }, ...pieces.map(piece)));
    at("samples").replaceChildren(...shown, make("p", { class: "hint" }, error ?? lengths));
  } catch {
    seen = 0;
    link("gone");
  }
}

function piece([text, learned, cut]) {
  return make(cut ? "s" : learned ? "mark" : "span", {}, text);
}

function figure({ label, value, below, share }) {
  const parts = [make("dt", {}, label), make("dd", { class: "value" }, value || "–")];
  if (share !== undefined && share !== null) {
    const meter = make("dd", { class: "meter", "aria-hidden": "true" }, make("span"));
    meter.classList.toggle("full", share > 0.95);
    meter.firstElementChild.style.inlineSize = `${100 * share}%`;
    parts.push(meter);
  }
  return make("div", {}, ...parts, ...below.map((text) => make("dd", { class: "below" }, text)));
}

// Updates the list of jobs in place, so that the keyboard focus is kept.
function list(jobs, chosen) {
  const items = at("jobs");
  while (items.children.length > jobs.length) items.lastElementChild.remove();
  jobs.forEach((job, i) => {
    const item = items.children[i] ?? items.appendChild(entry());
    const [link] = item.children;
    const [name, small, bar] = link.children;
    link.setAttribute("href", `#job=${job.id}`);
    if (job.id === chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    say(name, job.heading);
    say(small.children[0], job.label + (job.place ? ` (${job.place})` : ""));
    say(small.children[1], job.left);
    bar.dataset.state = job.state;
    bar.firstElementChild.style.inlineSize = `${100 * job.share}%`;
  });
}

function entry() {
  return make("li", {}, make("a", {},
    make("span", { class: "name" }),
    make("span", { class: "small" }, make("span"), make("span")),
    make("span", { class: "bar thin" }, make("span"))));
}

function log(entries) {
  at("log").replaceChildren(...entries.map(({ time, tone, text }) =>
    make("li", { class: tone }, make("time", {}, time), make("span", {}, text))));
}

function paint() {
  if (!curves || !words.lang) return;
  at("curves").hidden = !curves.loss.length && !curves.validation.length;
  const shared = {
    total: curves.total, epochs: curves.epochs,
    nothing: words.no_points, help: words.arrows, step: words.step,
  };
  const smooth = curves.smooth.length > 0;
  charts.loss.show({
    ...shared, title: words.loss, best: curves.best,
    lines: [
      { name: words.training, class: "train", points: curves.loss, faint: smooth },
      { name: words.smooth, class: "train", points: curves.smooth, quiet: true },
      { name: words.validation, class: "valid", points: curves.validation, dots: true },
    ],
  });
  charts.memory.show({
    ...shared, title: words.memory,
    bound: curves.budget ? { name: words.budget, value: curves.budget } : null,
    lines: [
      { name: words.footprint, class: "used", points: curves.footprint },
      { name: words.peak, class: "peak", points: curves.peak },
    ],
  });
  charts.rate.show({
    ...shared, title: words.rate,
    lines: [{ name: words.rate, class: "rate", points: curves.rate }],
  });
}

for (const button of document.querySelectorAll("[data-lang]")) {
  button.addEventListener("click", () => {
    try { localStorage.setItem("lang", button.dataset.lang); } catch { /* not kept, then */ }
    open();
  });
}
at("retry").addEventListener("click", retry);
at("seen").addEventListener("toggle", see);
addEventListener("hashchange", () => { if (/^#job=/.test(location.hash)) open(); });
listen(() => words, picked);
open();
