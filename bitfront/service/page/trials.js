// Trials with their layers: fetched once, and summed up.

import { ask, ofStudy } from "./api.js";
import { many } from "./words.js";

const kept = new Map(); // what was measured of a trial's layers may grow, so it is kept for a while only
const WHILE = 60_000; // milliseconds

/** The metric that a study's layers are judged by. */
export function layerMetric(study) {
  const names = Object.keys(study.settings.metrics ?? {});
  return names.includes("kl") || !names.length ? "kl" : names[0];
}

/** A trial of a study (its document), with its layers. */
export function trialOf(study, id, signal) {
  const path = `${ofStudy(study.name)}/trials/${id}`;
  const old = kept.get(path);
  if (old && Date.now() - old.since < WHILE) return old.found;
  const found = ask(path, { metric: layerMetric(study) }, signal);
  kept.set(path, { since: Date.now(), found });
  found.catch(() => kept.delete(path));
  return found;
}

/** How many layers of a trial take which scheme, in words. */
export function inWords(counts) {
  const parts = Object.entries(counts).map(([scheme, n]) => `${scheme} × ${n}`);
  const layers = Object.values(counts).reduce((sum, n) => sum + n, 0);
  return `${many(layers, "layer")}: ${parts.slice(0, 6).join(", ")}${parts.length > 6 ? ", …" : ""}`;
}

/** The same of a trial that is at hand. */
export function summary(trial) {
  const counts = {};
  for (const { scheme } of Object.values(trial.layers)) counts[scheme] = (counts[scheme] ?? 0) + 1;
  return inWords(Object.fromEntries(Object.entries(counts).sort((a, b) => b[1] - a[1])));
}

/** The same of one that is not. */
export async function summaryOf(study, id, signal) {
  return inWords((await ask(`${ofStudy(study.name)}/trials/${id}/schemes`, {}, signal)).schemes);
}
