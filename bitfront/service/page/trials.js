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

/** How many layers have which scheme, the most frequent first. */
export function schemes(trial) {
  const counts = new Map();
  for (const { scheme } of Object.values(trial.layers)) counts.set(scheme, (counts.get(scheme) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

export function summary(trial) {
  const parts = schemes(trial).map(([scheme, n]) => `${scheme} × ${n}`);
  return `${many(Object.keys(trial.layers).length, "layer")}: ${parts.slice(0, 6).join(", ")}${parts.length > 6 ? ", …" : ""}`;
}
