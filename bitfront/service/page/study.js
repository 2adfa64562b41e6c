// A study: what it is, its front, the chosen trial, and its jobs.

import { ask, ofStudy, pause, session } from "./api.js";
import { plotly } from "./chart.js";
import { fill, h, renew, table } from "./dom.js";
import { Front } from "./front.js";
import { Jobs } from "./jobs.js";
import { visible } from "./live.js";
import { trialPanel } from "./trial.js";
import { bare, count, digits, metricUnit } from "./words.js";

const AGAIN = 5; // seconds between two looks while jobs run

export async function show(root, [name], { signal, crumbs }) {
  crumbs([name, ""]);
  const head = h("div", {}), main = h("div", {}, h("p", { class: "loading" }, "Loading")), side = h("section", { class: "card", "aria-labelledby": "jobs" });
  const best = h("section", { class: "card", hidden: true, "aria-label": "Metrics" });
  fill(root, head, h("div", { class: "columns" }, main, h("div", {}, side, best)));
  const jobs = new Jobs(side, { study: name }, signal, { title: h("h2", { id: "jobs" }, "Jobs"), empty: "No jobs yet.", changed: () => refresh() });
  jobs.begin();
  plotly().catch(() => undefined); // begun early; whoever draws is told what went wrong
  let study = null, front = null, busy = false;

  async function refresh() {
    if (busy || signal.aborted) return;
    busy = true;
    try {
      const found = await ask(ofStudy(name), {}, signal);
      const more = study === null || found.trials !== study.trials;
      study = found;
      header(head, study);
      figures(best, study);
      if (more && study.trials) grow();
      if (!study.trials) fill(main, h("section", { class: "card" }, h("h2", {}, "No trials yet"), h("p", {}, "A search builds and measures allocations; each is a trial, and stands here when it is measured.")));
    } catch (error) {
      if (signal.aborted) return;
      if (error.status !== 404) throw error;
      await unbegun(error);
    } finally {
      busy = false;
    }
  }

  /** There are trials: show the front, with those that came since it was drawn. */
  function grow() {
    if (front === null || !front.complete(study)) {
      const card = h("section", { class: "card", "aria-label": "Front" }), chosen = h("section", { class: "card", hidden: true, "aria-label": "Chosen trial" });
      fill(main, card, chosen);
      const query = new URLSearchParams(location.hash.split("?")[1]);
      const before = front?.chosen ?? null;
      front?.end();
      front = new Front(card, study, query, signal, (id) => trialPanel(chosen, study, id, signal));
      front.chosen = before;
      if (before !== null) trialPanel(chosen, study, before, signal);
    } else {
      front.study = study;
    }
    front.load();
  }

  async function unbegun(error) {
    const { items } = await ask("jobs", { study: name, limit: 1 }, signal);
    if (!items.length) throw error;
    fill(head, h("div", { class: "head" }, h("h1", {}, name)));
    fill(main, h("section", { class: "card" }, h("h2", {}, "Not begun yet"), h("p", {}, "The study is there as soon as a worker has loaded its model and data.")));
  }

  await refresh();
  for (;;) {
    await pause(AGAIN, signal).then(() => visible(signal));
    if (signal.aborted) return;
    const active = [...jobs.cards.values()].some(({ job }) => job.state === "running");
    if (active || study === null) await refresh();
  }
}

function header(root, study) {
  const measurements = Object.values(study.profilers).reduce((sum, n) => sum + n, 0);
  const { kind, container } = study.settings;
  const facts = [["Task", kind], ["Layers", count(study.layers.length)], ["Trials", count(study.trials)], ["Measurements", count(measurements)],
    ["Profilers", Object.keys(study.profilers).join(", ")], ["Stored as", container]];
  const start = session.changes ? h("a", { class: "button main", href: `#/${ofStudy(study.name)}/new` }, "New job")
    : h("span", { class: "note" }, "This token is for reading only: jobs are submitted with another.");
  renew(root, [facts, study.state], () => h("div", { class: "head" },
    h("div", { class: "row" }, h("div", { class: "row" }, h("h1", {}, study.name), h("span", { class: `state ${study.state}` }, study.state)), start),
    h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value))))));
}

function figures(root, study) {
  const all = Object.entries(study.metrics), evaluated = all.filter(([name]) => bare(name) === name);
  const rows = evaluated.length ? evaluated : all;
  root.hidden = !rows.length;
  const trial = (id) => h("a", { href: `#/${ofStudy(study.name)}/trials/${id}` }, String(id));
  renew(root, rows, () => [h("h2", {}, "Best of each metric"), table("Best of each metric", [
    { name: "Metric", cell: ([name]) => name },
    { name: "Best", number: true, cell: ([name, span]) => `${digits(span.best)} ${metricUnit(study, name)}`.trim() },
    { name: "Trial", number: true, cell: ([, span]) => trial(span.best_trial) },
    { name: "of", number: true, cell: ([, span]) => count(span.trials) },
  ], rows)]);
}
