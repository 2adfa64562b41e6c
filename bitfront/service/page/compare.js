// Two trials side by side: their figures, and the layers in which they differ.

import { ask, ofStudy } from "./api.js";
import { sensitivity, tint } from "./bars.js";
import { fill, h, select, table } from "./dom.js";
import { trialOf } from "./trials.js";
import { amount, cost, digits, figure, known, many } from "./words.js";

const MOST = 500; // trials to choose from

export async function show(root, [name, one, other], { signal, crumbs }) {
  const ids = [Number(one), Number(other)];
  crumbs([name, `#/${ofStudy(name)}`], [`Trials ${one} and ${other}`, ""]);
  const study = await ask(ofStudy(name), {}, signal);
  const trials = await Promise.all(ids.map((id) => trialOf(study, id, signal)));
  const [a, b] = trials;
  fill(root,
    h("div", { class: "head" }, h("h1", {}, `Trials ${one} and ${other}`), chooser(study, ids, await choices(study, ids, signal))),
    h("section", { class: "card" }, h("h2", {}, "Figures"), figures(study, a, b)),
    h("section", { class: "card" }, h("h2", {}, "Layers that differ"), layers(a, b)));
}

/** Trials on the front, of size and the first metric, and the two themselves. */
async function choices(study, ids, signal) {
  const x = Object.keys(study.costs).includes("bytes") ? "bytes" : Object.keys(study.costs)[0];
  const metrics = Object.keys(study.metrics), y = metrics.includes("kl") ? "kl" : metrics[0];
  const { items } = await ask(`${ofStudy(study.name)}/points`, { x, y, limit: MOST }, signal);
  const best = items.filter((item) => item.on_front).map((item) => item.id);
  const words = new Map(items.map((item) => [item.id, `${item.id}: ${amount(x, item.x)}, ${y} ${digits(item.y, 3)}`]));
  return [...new Set([...best, ...ids])].map((id) => [String(id), words.get(id) ?? String(id)]);
}

function chooser(study, ids, options) {
  const go = (place, value) => {
    const next = ids.with(place, Number(value));
    location.hash = `#/${ofStudy(study.name)}/compare/${next.join("/")}`;
  };
  return h("div", { class: "controls block" }, ["First trial", "Second trial"].map((label, i) => select(label, options, String(ids[i]), (value) => go(i, value))),
    h("button", { on: { click: () => { location.hash = `#/${ofStudy(study.name)}/compare/${ids[1]}/${ids[0]}`; } } }, "Swap"));
}

function figures(study, a, b) {
  const link = (trial) => h("a", { href: `#/${ofStudy(study.name)}/trials/${trial.id}` }, `trial ${trial.id}`);
  const rows = [
    ...Object.keys({ ...a.costs, ...b.costs }).map((name) => ({ name, of: (t) => t.costs[name], words: (t) => cost(name, t.costs[name], t.settings.weights) })),
    { name: "predicted", of: (t) => t.predicted, words: (t) => digits(t.predicted) },
    { name: "expected", of: (t) => t.expected, words: (t) => digits(t.expected) },
    ...Object.keys({ ...a.metrics, ...b.metrics }).map((name) => ({ name, of: (t) => t.metrics[name]?.value, words: (t) => figure(t.metrics[name]) })),
  ];
  const change = ({ of }) => {
    const [before, after] = [of(a), of(b)];
    if (before === after) return "same";
    if (!known(before) || !known(after) || before === 0) return "–";
    return `${after >= before ? "+" : "−"}${digits(Math.abs(100 * (after / before - 1)), 3)} %`;
  };
  return h("div", {}, h("p", { class: "soft" }, "From ", link(a), " to ", link(b), "."), table("Figures of both trials", [
    { name: "Figure", cell: (row) => row.name },
    { name: `Trial ${a.id}`, number: true, cell: (row) => row.words(a) },
    { name: `Trial ${b.id}`, number: true, cell: (row) => row.words(b) },
    { name: "Change", number: true, cell: change },
  ], rows));
}

function layers(a, b) {
  const names = Object.keys({ ...a.layers, ...b.layers });
  const differ = names.filter((name) => a.layers[name]?.scheme !== b.layers[name]?.scheme);
  const scheme = (trial) => (name) => {
    const layer = trial.layers[name], mark = h("i", {});
    if (!layer) return "–";
    mark.style.background = tint(layer.bits);
    return h("span", { class: "scheme" }, mark, layer.scheme);
  };
  const size = (trial) => (name) => amount("bytes", trial.layers[name]?.bytes);
  const loss = (trial) => (name) => (trial.layers[name] ? sensitivity(trial.layers[name], "estimated") : "–");
  const delta = (name) => {
    const change = b.layers[name]?.bytes - a.layers[name]?.bytes;
    return known(change) ? `${change > 0 ? "+" : change < 0 ? "−" : ""}${amount("bytes", Math.abs(change))}` : "–";
  };
  return h("div", {}, h("p", {}, `${many(differ.length, "layer differs", "layers differ")} of ${names.length}.`),
    differ.length ? table("Layers that differ", [
      { name: "Layer", cell: (name) => name },
      { name: `Trial ${a.id}`, cell: scheme(a) }, { name: `Trial ${b.id}`, cell: scheme(b) },
      { name: `Size in ${a.id}`, number: true, cell: size(a) }, { name: `Size in ${b.id}`, number: true, cell: size(b) }, { name: "Change", number: true, cell: delta },
      { name: `Sensitivity in ${a.id}`, number: true, cell: loss(a) }, { name: `Sensitivity in ${b.id}`, number: true, cell: loss(b) },
    ], differ) : null);
}
