// Curves over optimizer steps, drawn by uPlot, with the cursor for mouse and arrow keys.
"use strict";

const lang = document.documentElement.lang === "pt" ? "pt-PT" : "en";
const number = new Intl.NumberFormat(lang, { maximumSignificantDigits: 4 });
const GIB = 2 ** 30;
const TONES = ["train", "valid", "used", "rate", "peak", "good"];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

// The lines of each chart of a job, of what the server sends under these names.
const CHARTS = {
  loss: (c) => [
    { key: "loss", tone: "train", points: c.loss, faint: c.smooth.length > 0 },
    { key: "smooth", tone: "train", points: c.smooth, quiet: true },
    { key: "validation", tone: "valid", points: c.validation, dots: true },
    { key: "best", tone: "valid", points: c.best ? [c.best] : [], ring: true, quiet: true },
  ],
  memory: (c) => [
    { key: "footprint", tone: "used", points: c.footprint.map(([x, y]) => [x, y / GIB]) },
    { key: "peak", tone: "peak", points: c.peak.map(([x, y]) => [x, y / GIB]) },
    { key: "budget", tone: "soft", dash: true, quiet: true, points: c.budget && c.footprint.length
      ? [c.footprint[0], c.footprint.at(-1)].map(([x]) => [x, c.budget / GIB]) : [] },
  ],
  rate: (c) => [{ key: "rate", tone: "rate", points: c.rate }],
};

function series({ name, tone, faint, dots, ring, dash }) {
  const stroke = colour(tone);
  return {
    label: name, stroke: ring ? "transparent" : stroke, width: faint ? 1 : 2, alpha: faint ? 0.45 : 1,
    dash: dash || dots ? [dots ? 2 : 6, 5] : undefined, spanGaps: true,
    points: ring ? { show: true, size: 14, width: 2, stroke, fill: "transparent" }
      : dots ? { show: true, size: 7, fill: stroke } : { show: false },
    value: (_chart, value) => (value === null ? "–" : number.format(value)),
  };
}

// Draws lines into an element; `fromZero`: the axis begins at nothing; `epochs`: steps to mark.
function draw(plot, lines, { epochs = [], fromZero = false } = {}) {
  const shown = lines.filter((line) => line.points.length);
  plot.closest("figure").hidden = !shown.length;
  if (!shown.length) return;
  const axis = {
    stroke: colour("soft"), font: "12px system-ui", grid: { stroke: colour("grid"), width: 1 },
    ticks: { show: false }, values: (_chart, splits) => splits.map((value) => number.format(value)),
  };
  const options = {
    width: plot.clientWidth || 300, height: plot.closest(".wide, #compared") ? 270 : 200,
    scales: { x: { time: false }, y: { range: { min: { pad: 0.1, soft: fromZero ? 0 : undefined, mode: fromZero ? 1 : 0 }, max: { pad: 0.1 } } } },
    axes: [{ ...axis, size: 30 }, { ...axis, size: 58 }],
    series: [{ label: plot.dataset.step ?? plot.closest("[data-step]").dataset.step }, ...shown.map(series)],
    legend: { markers: { width: 3 } }, cursor: { drag: { x: false, y: false } },
    hooks: { drawAxes: [({ ctx, bbox, valToPos }) => {
      ctx.strokeStyle = colour("edge");
      ctx.setLineDash([3, 5]);
      for (const step of epochs) {
        const x = valToPos(step, "x", true);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.setLineDash([]);
    }] },
  };
  const at = plot.chart?.cursor.idx;
  plot.chart?.destroy();
  plot.replaceChildren();
  const data = uPlot.join(shown.map(({ points }) => [points.map(([x]) => x), points.map(([, y]) => y)]));
  plot.chart = new uPlot(options, data, plot);
  plot.lines = lines;
  plot.options = { epochs, fromZero };
  const last = shown.filter((line) => !line.quiet)
    .map((line) => `${line.name} ${number.format(line.points.at(-1)[1])}`).join(", ");
  const help = plot.dataset.help ?? plot.closest("[data-help]").dataset.help;
  plot.setAttribute("aria-label", `${plot.dataset.title}: ${last}. ${help}`);
  if (document.activeElement === plot && at >= 0) point(plot, at);
}

function point(plot, index) {
  const { data, series: all } = plot.chart;
  const i = Math.max(0, Math.min(index, data[0].length - 1));
  plot.chart.setCursor({ left: plot.chart.valToPos(data[0][i], "x"), top: 10 });
  const values = all.slice(1).map((one, n) => [one.label, data[n + 1][i]])
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([label, value]) => `${label} ${number.format(value)}`);
  plot.parentElement.querySelector(".readout").textContent =
    [`${all[0].label} ${number.format(data[0][i])}`, ...values].join(" · ");
}

document.addEventListener("keydown", (event) => {
  const plot = event.target.closest?.(".plot");
  if (!plot?.chart) return;
  const now = plot.chart.cursor.idx ?? -1;
  const last = plot.chart.data[0].length - 1;
  const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  point(plot, next);
});

document.addEventListener("curves", (event) => {
  const curves = JSON.parse(event.detail.data);
  document.getElementById("curves").hidden = !curves.loss.length && !curves.validation.length;
  for (const plot of document.querySelectorAll("[data-chart]")) {
    const names = JSON.parse(plot.dataset.names);
    const lines = CHARTS[plot.dataset.chart](curves).map((line) => ({ ...line, name: names[line.key] }));
    draw(plot, lines, { epochs: curves.epochs, fromZero: plot.dataset.chart !== "loss" });
  }
});

document.addEventListener("htmx:after:swap", () => {
  for (const plot of document.querySelectorAll("[data-runs]")) {
    if (plot.chart) continue;
    const runs = JSON.parse(plot.dataset.runs);
    draw(plot, runs.map((run, n) => (
      { name: run.name, tone: TONES[n], points: run[plot.dataset.line] })));
  }
});

const redraw = () => {
  for (const plot of document.querySelectorAll(".plot")) {
    if (plot.chart) draw(plot, plot.lines, plot.options);
  }
};
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
