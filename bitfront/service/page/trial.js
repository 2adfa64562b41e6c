// A trial: totals predicted and measured, and its layers.

import { ask, ofStudy, session } from "./api.js";
import { layerBars } from "./bars.js";
import { fill, h, table } from "./dom.js";
import { layerMetric, summary, trialOf } from "./trials.js";
import { amount, bare, cost, digits, figure, metricUnit, sentences } from "./words.js";

export async function show(root, [name, id], { signal, crumbs }) {
  crumbs([name, `#/${ofStudy(name)}`], [`Trial ${id}`, ""]);
  const study = await ask(ofStudy(name), {}, signal);
  const card = h("section", { class: "card" });
  fill(root, card);
  await trialPanel(card, study, Number(id), signal, "h1");
}

/** Show a trial in ``root``, which is shown itself. */
export async function trialPanel(root, study, id, signal, heading = "h2") {
  root.hidden = false;
  const asked = (root.asked = Symbol("asked"));
  if (!root.firstChild) fill(root, h("p", { class: "loading" }, `Loading trial ${id}`));
  try {
    const trial = await trialOf(study, id, signal);
    if (asked !== root.asked) return;
    const layers = h("div", {});
    fill(root,
      h("div", { class: "row" }, h(heading, {}, heading === "h1" ? `Trial ${id}` : h("a", { href: `#/${ofStudy(study.name)}/trials/${id}` }, `Trial ${id}`)), actions(study, trial)),
      h("p", { class: "soft" }, origin(trial)), h("p", {}, summary(trial)),
      costs(trial), metrics(study, trial), layers);
    layerBars(layers, trial, signal, heading === "h1" ? "h2" : "h3");
  } catch (error) {
    if (signal.aborted) return;
    if (heading === "h1") throw error;
    fill(root, h("p", { class: "trouble", role: "alert" }, sentences(error.message, error.hint)));
  }
}

function origin({ settings, solver, seconds }) {
  const budgets = settings.budgets?.length ? `for ${settings.budgets.join(", ")}, ` : "";
  const how = settings.table ? ` (${settings.table})` : "";
  return `Found ${budgets}by ${solver}${how}${seconds === null ? "" : `; measured in ${digits(seconds, 3)} s`}.`;
}

function actions(study, trial) {
  const place = `#/${ofStudy(study.name)}`;
  const other = Object.values(study.metrics).map((span) => span.best_trial).find((id) => id !== trial.id) ?? trial.id;
  const output = session.meta.output && session.changes;
  const why = session.changes ? "This server has no folder for exports (--output)." : "This token is for reading only.";
  return h("div", { class: "actions" },
    h("a", { class: "button", href: `${place}/compare/${trial.id}/${other}` }, "Compare"),
    output ? h("a", { class: "button main", href: `${place}/new?kind=export&trial=${trial.id}` }, "Export")
      : h("span", { class: "button", "aria-disabled": "true", title: why }, "Export"),
    output ? null : h("span", { class: "note" }, why));
}

function costs({ costs: found, settings }) {
  return h("dl", { class: "facts" }, Object.entries(found).map(([name, value]) => h("div", {},
    h("dt", {}, name), h("dd", { title: `${value}` }, cost(name, value, settings.weights)))));
}

/** Every metric: predicted, on the calibration data, on those held back, and on the evaluation data. */
function metrics(study, trial) {
  const names = [...new Set(Object.keys(trial.metrics).map(bare))];
  const judged = layerMetric(study);
  const at = (name) => figure(trial.metrics[name]);
  const parted = (name) => (trial.parted[name]?.length ? `on ${trial.parted[name].join(" and ")} data` : "");
  const data = [["calibration/", "Calibration"], ["held-back/", "Held back"], ["", "Evaluation"]].filter(([prefix]) => names.some((name) => trial.metrics[prefix + name]));
  return table("Metrics of the trial", [
    { name: "Metric", cell: (name) => `${name}${metricUnit(study, name) ? ` (${metricUnit(study, name)})` : ""}` },
    { name: "Predicted", number: true, cell: (name) => (name === judged ? digits(trial.predicted) : "–") },
    { name: "Expected", number: true, cell: (name) => (name === judged ? digits(trial.expected) : "–") },
    ...data.map(([prefix, label]) => ({ name: label, number: true, cell: (name) => at(prefix + name) })),
    ...(names.some(parted) ? [{ name: "Worse", cell: (name) => parted(name) || "–" }] : []),
  ], names);
}
