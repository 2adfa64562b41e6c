// plotly.js, which is loaded when it is first needed, and what its figures share here.

import { color, h } from "./dom.js";
import { digits, unitOf } from "./words.js";

const CLEAR = "rgba(0,0,0,0)";
const WIDE = 4; // greatest over least value from which an axis is logarithmic, unless it is chosen
export const COLORS = { 2: "#f59f00", 3: "#f76707", 4: "#f03e3e", 5: "#e64980", 6: "#cc5de8", 7: "#9c5de8", 8: "#7048e8", 16: "#4c6ef5", 32: "#228be6", 64: "#15aabf" };
export const OPTIONS = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false, showTips: false };
let loading = null;

/** The library. */
export function plotly() {
  loading ??= new Promise((done, fail) => {
    const script = h("script", { src: new URL("plotly.js", import.meta.url), on: {
      load: () => done(window.Plotly),
      error: () => { loading = null; script.remove(); fail(new Error("plotly.js could not be loaded")); },
    } });
    document.head.append(script);
  });
  return loading;
}

/** What every figure's layout begins with, in the colours of the page. */
export function layout(more) {
  return {
    template: "none", paper_bgcolor: CLEAR, plot_bgcolor: CLEAR, showlegend: false,
    font: { family: "system-ui, sans-serif", size: 13, color: color("--ink") },
    hovermode: "closest", ...more,
  };
}

/** Settings of an axis with lines and ticks in the colours of the page. */
export function lines(more) {
  const line = color("--line");
  return { gridcolor: line, linecolor: line, tickcolor: line, zeroline: false, ticks: "outside", ticklen: 4, fixedrange: false, ...more };
}

/** Text for plotly, which reads a little HTML in labels. */
export const markup = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** An axis of a figure's values: where they stand on it, in plotly's coordinates and as shares. */
export class Axis {
  /** isCost: whether to write values in the unit that suits the greatest. log: null to decide here. */
  constructor(name, values, { isCost, unit, weights, log }) {
    const greatest = Math.max(...values), least = Math.min(...values), positive = values.filter((v) => v > 0);
    [this.size, this.unit] = isCost ? unitOf(name, greatest) : [1, unit];
    if (isCost && weights && ["bits", "stored_bits"].includes(name)) [this.size, this.unit] = [weights, "per weight"];
    this.name = name;
    this.canLog = least >= 0 && positive.length > 0;
    this.log = this.canLog && (log ?? (isCost ? greatest / Math.min(...positive) > WIDE : true));
    this.floor = (positive.length ? Math.min(...positive) : 1) / 4; // where zeros stand, if there are any
    this.zeros = this.log && positive.length < values.length;
    const ends = [this.log ? (this.zeros ? this.floor : least) : least, greatest].map((v) => this.place(v));
    const room = (ends[1] - ends[0] || Math.abs(ends[1]) || 1) * 0.05;
    this.full = [ends[0] - room, ends[1] + room];
  }

  /** In plotly's range: the value in the axis' unit, its decimal logarithm where that is the scale. */
  place(value) {
    const own = this.log ? Math.max(value, this.floor) : value;
    return this.log ? Math.log10(own / this.size) : own / this.size;
  }

  /** For plotly's data. */
  at(value) {
    return (this.log ? Math.max(value, this.floor) : value) / this.size;
  }

  /** The value at a share of the way along the whole axis. */
  value(share) {
    const place = this.full[0] + share * (this.full[1] - this.full[0]);
    return (this.log ? 10 ** place : place) * this.size;
  }

  share(value, range = this.full) {
    return (this.place(value) - range[0]) / (range[1] - range[0]);
  }

  get title() {
    return this.unit ? `${this.name} (${this.unit})` : this.name;
  }

  settings(range) {
    const text = { text: markup(this.title), standoff: 8 };
    if (!this.log) return lines({ title: text, range, type: "linear", exponentformat: "none" });
    const ticks = ticksBetween(10 ** range[0], 10 ** range[1]).filter((t) => !this.zeros || t > (2 * this.floor) / this.size);
    const zero = this.zeros ? [this.floor / this.size] : [];
    return lines({ title: text, range, type: "log", tickvals: [...zero, ...ticks], ticktext: [...zero.map(() => "0"), ...ticks.map(tickText)] });
  }
}

/** Powers of ten, and twice and five times them where there are few; of short axes evenly spaced ones. */
export function ticksBetween(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), found = [];
  for (let power = first; power <= last; power += 1) {
    for (const step of last - first <= 3 ? [1, 2, 5] : [1]) found.push(step * 10 ** power);
  }
  const within = found.filter((tick) => tick >= low && tick <= high);
  if (within.length >= 3) return within;
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  const wide = (high - low) / step > 8 ? 5 * step : (high - low) / step > 4 ? 2 * step : step;
  const even = [];
  for (let tick = Math.ceil(low / wide) * wide; tick <= high; tick += wide) even.push(Number(tick.toPrecision(6)));
  return even;
}

function tickText(value) {
  if (value >= 1e-3 && value < 1e6) return digits(value, 6);
  const [digit, power] = value.toExponential(0).split("e");
  const raised = [...String(Number(power))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join(""); // plotly's <sup> is an inline style
  return `${digit === "1" ? "" : `${digit} × `}10${raised}`;
}
