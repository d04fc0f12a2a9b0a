// A chart of lines and dots over optimizer steps, as SVG, with a cursor for mouse and arrow keys.

import { draw, make, say } from "./dom.js";
import { integer } from "./format.js";

const RIGHT = 12, TOP = 10, BOTTOM = 26;
const CHARACTER = 7; // pixels, of a label's text at most
const LABEL_SPACE = 70; // pixels between two labels of the x axis, at least

export class Chart {
  // `figure`: the parent element; `height`: pixels; `write(value, step)`: formats a value with
  // enough digits for ticks `step` apart; `base`: the unit of round values.
  constructor(figure, { height, write, fromZero = false, base = 1 }) {
    Object.assign(this, { figure, height, write, fromZero, base });
    this.lines = []; // empty until `show`
    this.cursor = null;
    this.caption = make("figcaption");
    this.heading = make("h3");
    this.legend = make("ul", { class: "legend" });
    this.caption.append(this.heading, this.legend);
    this.plot = make("div", { class: "plot", tabindex: "0", role: "group" });
    this.readout = make("output", { class: "readout", "aria-live": "polite", hidden: true });
    this.note = make("p", { class: "nothing" });
    figure.append(this.caption, this.plot, this.readout, this.note);
    this.#listen();
    new ResizeObserver(() => this.#paint()).observe(this.plot);
  }

  // `lines`: [{name, class, points: [[step, value]], dots, faint, quiet}]; `bound`: a dashed line.
  show({ title, nothing, help, step, lines, total, bound = null, best = null, epochs = [] }) {
    Object.assign(this, { lines, total, bound, best, epochs, step });
    say(this.heading, title);
    say(this.note, nothing);
    const empty = lines.every((line) => !line.points.length);
    this.note.hidden = !empty;
    this.plot.hidden = empty;
    const summary = lines.filter((line) => line.points.length && !line.quiet)
      .map((line) => `${line.name} ${this.write(line.points.at(-1)[1])}`).join(", ");
    this.plot.setAttribute("aria-label", `${title}: ${summary}. ${help}`);
    this.#key();
    this.#paint();
  }

  #key() {
    const entries = this.lines.filter((line) => line.points.length);
    if (this.bound) entries.push({ name: this.bound.name, class: "bound" });
    this.legend.hidden = entries.length < 2; // the heading names a single line
    this.legend.replaceChildren(...entries.map((line) =>
      make("li", { class: `${line.class}${line.faint ? " faint" : ""}${line.dots ? " dots" : ""}` },
        line.name)));
  }

  #paint() {
    const width = this.plot.clientWidth;
    if (!width || !this.lines.length || this.plot.hidden) return;
    const every = this.lines.flatMap((line) => line.points);
    this.scale = scaleOf(every, this, width);
    const { x, y, left } = this.scale;
    const svg = draw("svg", {
      width, height: this.height, viewBox: `0 0 ${width} ${this.height}`, "aria-hidden": "true",
    });
    svg.append(...this.#axes(width));
    for (const step of this.epochs) {
      svg.append(draw("line", {
        class: "epoch", x1: x(step), x2: x(step), y1: TOP, y2: this.height - BOTTOM,
      }));
    }
    if (this.bound) {
      const level = y(this.bound.value);
      svg.append(draw("line", {
        class: "bound", x1: left, x2: width - RIGHT, y1: level, y2: level,
      }));
    }
    for (const line of this.lines) svg.append(...this.#line(line));
    if (this.best) {
      const [step, value] = this.best;
      svg.append(draw("circle", { class: "best", cx: x(step), cy: y(value), r: 6.5 }));
    }
    this.hair = draw("g", { class: "hair" });
    svg.append(this.hair);
    this.plot.replaceChildren(svg);
    if (this.cursor !== null) this.#point(this.cursor);
  }

  #line({ points, class: name, faint, dots }) {
    if (!points.length) return [];
    const { x, y } = this.scale;
    const path = points.map(([step, value], i) =>
      `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const parts = [draw("path", { class: `line ${name}${faint ? " faint" : ""}`, d: path })];
    if (dots || points.length === 1) {
      parts.push(...points.map(([step, value]) =>
        draw("circle", { class: `dot ${name}`, cx: x(step), cy: y(value), r: 3 })));
    }
    return parts;
  }

  #axes(width) {
    const { x, y, left, levels, end } = this.scale;
    const parts = levels.flatMap(([value, label]) => [
      draw("line", { class: "grid", x1: left, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      draw("text", { class: "label end", x: left - 8, y: y(value) + 4 }, label),
    ]);
    const room = Math.max(2, Math.floor((width - left - RIGHT) / LABEL_SPACE));
    const steps = ticks(0, end, room).filter((value) => Number.isInteger(value));
    for (const value of steps) {
      const edge = x(value) > width - RIGHT - 20 ? "end" : "mid";
      parts.push(draw("text", {
        class: `label ${edge}`, x: edge === "end" ? width - RIGHT : x(value), y: this.height - 6,
      }, value === 0 ? `${this.step} 0` : integer(value)));
    }
    return parts;
  }

  #listen() {
    this.plot.addEventListener("pointermove", (event) => {
      const left = this.plot.getBoundingClientRect().left;
      this.#point(this.#nearest(event.clientX - left));
    });
    this.plot.addEventListener("pointerleave", () => this.#leave());
    this.plot.addEventListener("blur", () => this.#leave());
    this.plot.addEventListener("keydown", (event) => {
      const steps = this.#steps();
      const here = this.cursor === null ? steps.length : steps.indexOf(this.cursor);
      const to = {
        ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: steps.length - 1,
      }[event.key];
      if (event.key === "Escape") this.#leave();
      if (to === undefined || !steps.length) return;
      event.preventDefault();
      this.#point(steps[Math.max(0, Math.min(steps.length - 1, to))]);
    });
  }

  #steps() {
    const all = new Set(this.lines.flatMap((line) => line.points.map(([step]) => step)));
    return [...all].sort((a, b) => a - b);
  }

  #nearest(pixel) {
    const { x } = this.scale;
    const steps = this.#steps();
    return steps.reduce((best, step) =>
      Math.abs(x(step) - pixel) < Math.abs(x(best) - pixel) ? step : best, steps[0]);
  }

  // Shows the value of each line at a step, or the last one before it.
  #point(step) {
    if (step === undefined) return;
    const { x, y } = this.scale;
    this.cursor = step;
    const found = this.lines.filter((line) => !line.quiet).map((line) => {
      const point = line.dots
        ? line.points.find(([at]) => at === step)
        : line.points.findLast(([at]) => at <= step);
      return { line, point };
    }).filter(({ point }) => point);
    this.hair.replaceChildren(
      draw("line", { x1: x(step), x2: x(step), y1: TOP, y2: this.height - BOTTOM }),
      ...found.map(({ line, point }) =>
        draw("circle", { class: `dot ${line.class}`, cx: x(point[0]), cy: y(point[1]), r: 4 })),
    );
    this.readout.hidden = false;
    const read = found.map(({ line, point }) => `${line.name} ${this.write(point[1])}`);
    say(this.readout, [`${this.step} ${integer(step)}`, ...read].join(" · "));
  }

  #leave() {
    this.cursor = null;
    this.readout.hidden = true;
    this.hair?.replaceChildren();
  }
}

// The scales of both axes, and the ticks of the y axis: [[value, label]].
function scaleOf(points, { height, fromZero, total, bound, base, write }, width) {
  const values = points.map(([, value]) => value);
  if (bound) values.push(bound.value);
  let low = fromZero ? 0 : Math.min(...values);
  let high = Math.max(...values);
  const air = (high - low || Math.abs(high) || 1) * 0.06;
  high += air;
  if (!fromZero) low = Math.max(low - air, low >= 0 ? 0 : -Infinity);
  const end = Math.max(total || 0, ...points.map(([step]) => step), 1);
  const round = ticks(low / base, high / base, 4).map((value) => value * base);
  const levels = round.map((value) => [value, write(value, round[1] - round[0])]);
  const left = 14 + CHARACTER * Math.max(...levels.map(([, label]) => label.length));
  const x = (step) => left + step / end * (width - left - RIGHT);
  const y = (value) => height - BOTTOM - (value - low) / (high - low) * (height - TOP - BOTTOM);
  return { x, y, left, levels, end };
}

// About `count` round values between low and high.
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-9); n += 1) {
    found.push(n * step);
  }
  return found;
}
