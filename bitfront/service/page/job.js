// A job: how far it is, what it was asked for, its history, and the files that it wrote.

import { ask, ofStudy } from "./api.js";
import { fill, h } from "./dom.js";
import { filesOf } from "./files.js";
import { Job } from "./jobs.js";
import { sentences } from "./words.js";

const QUIET = ["text", "hint", "unit", "worker", "attempt", "stage", "seconds"]; // details in this order

export async function show(root, [id], { signal, crumbs }) {
  const job = await ask(`jobs/${id}`, {}, signal);
  crumbs([job.study, `#/${ofStudy(job.study)}`], [`Job ${id}`, ""]);
  const files = h("section", { class: "card", hidden: true });
  const list = h("ol", { class: "history" });
  const card = new Job(job, { study: true, heading: "h2", changed: (now) => outcome(now) });
  fill(root, h("h1", { class: "head" }, `Job ${id}, ${job.kind}`),
    h("section", { class: "card", "aria-label": "Progress" }, card.root), files,
    h("section", { class: "card" }, h("h2", {}, "History"), list),
    h("section", { class: "card" }, h("details", {}, h("summary", {}, "The request"), h("pre", {}, JSON.stringify(job.request, null, 2)))));

  async function outcome(now) {
    if (now.state !== "succeeded" || !["export", "report"].includes(now.kind)) return;
    files.hidden = false;
    try {
      await filesOf(now, files, signal);
    } catch (error) {
      if (!signal.aborted) fill(files, h("h2", {}, "Files"), h("p", { class: "trouble", role: "alert" }, sentences(error.message, error.hint)));
    }
  }

  let after = 0;
  const heard = (event) => { after = event.number; list.append(line(event)); };
  for (;;) {
    const found = await ask(`jobs/${id}/events`, { after }, signal);
    found.items.forEach(heard);
    if (!found.items.length) break;
  }
  card.follow(signal, heard, after);
  await outcome(job);
}

function line({ kind, created, details }) {
  const words = QUIET.filter((name) => details[name] !== undefined && details[name] !== "").map((name) => (name === "text" ? details.text : `${name} ${details[name]}`));
  return h("li", {}, h("time", { datetime: created, title: created }, created.slice(11, 19)), h("strong", {}, kind), words.length ? `: ${words.join(", ")}` : "");
}
