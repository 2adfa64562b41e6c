// The layers of a trial as bars, coloured by bits; what the pointer is at in words; the same as a table.

import { COLORS, OPTIONS, layout, lines, markup, plotly } from "./chart.js";
import { color, fill, h, select, table } from "./dom.js";
import { amount, count, digits } from "./words.js";

const UNKNOWN = "#868e96"; // a layer that is kept, and whose width is not known
const LONGEST = 19; // characters of a label
const SPACING = 18; // pixels that a slanted label needs
const LEFT = 66; // pixels of the margin
const HEIGHTS = { bits: "bits of a weight", bytes: "bytes", estimated: "sensitivity, estimated", measured: "sensitivity, measured alone" };

export const tint = (bits) => COLORS[bits] ?? UNKNOWN;

/** Sensitivity with its standard error, marked where its rank is in doubt. */
export function sensitivity(layer, kind) {
  const value = layer[kind], error = layer[`${kind}_stderr`];
  if (value === null) return "–";
  return digits(value, 3) + (error ? ` ± ${digits(error, 1)}` : "");
}

/** Show the layers of a trial in ``root``. */
export function layerBars(root, trial, signal, heading) {
  const names = Object.keys(trial.layers), layers = Object.values(trial.layers);
  const has = Object.keys(HEIGHTS).filter((kind) => layers.some((layer) => layer[kind] !== null));
  let kind = "bits";
  const box = h("div", { class: "plot bars", role: "img", "aria-label": `Layers of trial ${trial.id} as bars; the table below has the same figures.` });
  const area = h("div", {}), tip = h("div", { class: "tip", hidden: true });
  const widths = [...new Set(layers.map((layer) => layer.bits))].sort((a, b) => (a ?? 99) - (b ?? 99));
  const key = (bits) => { const i = h("i", {}); i.style.background = tint(bits); return h("li", {}, i, bits === null ? "kept, width not known" : `${bits} bits`); };
  fill(box, area, tip);
  fill(root,
    h("div", { class: "row block" }, h(heading, {}, "Layers"), h("div", { class: "controls" },
      select("Height", has.map((name) => [name, HEIGHTS[name]]), kind, (value) => { kind = value; draw(); }))),
    h("ul", { class: "keys" }, widths.map(key)), box,
    h("details", { class: "long" }, h("summary", {}, `Table of ${count(names.length)} layers`), layerTable(names, layers)));

  async function draw() {
    const library = await plotly();
    if (signal.aborted || !box.isConnected) return end();
    const values = layers.map((layer) => layer[kind]);
    const logarithmic = kind !== "bits" && Math.max(...values) > 20 * Math.min(...values.filter((v) => v > 0)) && values.every((v) => v === null || v >= 0);
    const every = Math.max(1, Math.ceil((SPACING * names.length) / Math.max(box.clientWidth - 90, 1)));
    const marked = names.map((_, i) => i).filter((i) => i % every === 0);
    const drawn = await library.react(area, [{
      type: "bar", x: names.map((_, i) => i), y: values, hoverinfo: "none", textposition: "none",
      marker: { color: layers.map((layer) => tint(layer.bits)) },
    }], layout({
      width: box.clientWidth, height: box.clientHeight, margin: { l: LEFT, r: 10, t: 10, b: 122 }, bargap: 0.12, dragmode: false, hovermode: "x",
      xaxis: lines({ tickvals: marked, ticktext: marked.map((i) => label(names[i])), tickangle: -60, showgrid: false, fixedrange: true, range: [-0.6, names.length - 0.4] }),
      yaxis: lines({ ...(kind === "bits" ? { tickvals: marks(Math.max(...values)) } : {}), title: { text: HEIGHTS[kind] }, type: logarithmic ? "log" : "linear", fixedrange: true, exponentformat: "e", rangemode: "tozero", nticks: 6 }),
    }), OPTIONS);
    drawn.removeAllListeners("plotly_hover");
    drawn.removeAllListeners("plotly_unhover");
    drawn.on("plotly_hover", ({ points: [point] }) => over(point.pointIndex, LEFT + point.xaxis.d2p(point.x)));
    drawn.on("plotly_unhover", () => { tip.hidden = true; });
    return undefined;
  }

  function over(i, left) {
    const layer = layers[i];
    fill(tip, h("p", {}, h("strong", {}, names[i])), h("p", {}, `${layer.scheme}${layer.bits === null ? "" : `, ${layer.bits} bits`}`),
      layer.kind ? h("p", {}, `${layer.kind}, ${layer.shape.join(" × ")}`) : null,
      h("p", {}, `${amount("bytes", layer.bytes)} of ${amount("bytes", layer.full_bytes)}`),
      h("p", {}, `sensitivity ${sensitivity(layer, "estimated")}${layer.inside_noise ? " (rank in doubt)" : ""}`),
      layer.measured === null ? null : h("p", {}, `measured alone ${sensitivity(layer, "measured")}`));
    tip.hidden = false;
    const right = left > box.clientWidth / 2;
    tip.style.left = right ? "" : `${left + 12}px`;
    tip.style.right = right ? `${box.clientWidth - left + 12}px` : "";
    tip.style.top = "8px";
  }

  function end() {
    resized.disconnect();
    document.removeEventListener("theme", draw);
  }

  const resized = new ResizeObserver(() => draw());
  resized.observe(box);
  document.addEventListener("theme", draw);
  signal.addEventListener("abort", end);
}

/** Ticks of the axis of bits. */
function marks(most) {
  return most <= 8 ? [1, 2, 3, 4, 5, 6, 7, 8] : [4, 8, 16, 32, 64].filter((bits) => bits >= most / 8);
}

function label(name) {
  let short = name;
  while (short.length > LONGEST && short.includes(".")) short = short.slice(short.indexOf(".") + 1);
  short = short.slice(-LONGEST);
  return markup(short === name ? name : `…${short}`);
}

function layerTable(names, layers) {
  return table("Layers", [
    { name: "Layer", cell: ([name]) => name },
    { name: "Kind", cell: ([, layer]) => layer.kind ?? "–" },
    { name: "Shape", number: true, cell: ([, layer]) => layer.shape?.join(" × ") ?? "–" },
    { name: "Scheme", cell: ([, layer]) => layer.scheme },
    { name: "Bits", number: true, cell: ([, layer]) => layer.bits ?? "–" },
    { name: "Size", number: true, cell: ([, layer]) => amount("bytes", layer.bytes) },
    { name: "In full", number: true, cell: ([, layer]) => amount("bytes", layer.full_bytes) },
    { name: "Sensitivity", number: true, cell: ([, layer]) => sensitivity(layer, "estimated") + (layer.inside_noise ? " (rank in doubt)" : "") },
    { name: "Measured alone", number: true, cell: ([, layer]) => sensitivity(layer, "measured") },
  ], names.map((name, i) => [name, layers[i]]));
}
