// All studies of the database, and the jobs that are under way.

import { ask, pause, session } from "./api.js";
import { fill, h, keeping, renew, say, table } from "./dom.js";
import { Jobs } from "./jobs.js";
import { visible } from "./live.js";
import { ago, amount, bare, count, digits } from "./words.js";

const ROWS = 50; // of a page of the list
const AGAIN = 10; // seconds between two looks
const SHOWN = 3; // metrics of a line

export async function show(root, _, { signal, crumbs }) {
  crumbs();
  const filter = h("input", { type: "search", size: 24, id: "filter", on: { input: () => { clearTimeout(timer); timer = setTimeout(load, 250); } } });
  const list = h("div", {}, h("p", { class: "loading" }, "Loading"));
  const order = h("select", { id: "order", on: { change: () => load() } },
    [["-created", "newest first"], ["created", "oldest first"], ["name", "by name"]].map(([value, text]) => h("option", { value }, text)));
  const pager = h("div", { class: "actions" });
  const jobs = h("section", { class: "card", "aria-labelledby": "under-way" });
  let timer = 0, cursors = [""];
  fill(root,
    h("div", { class: "row head" }, h("h1", {}, "Studies"), newStudy()),
    h("div", { class: "columns" },
      h("div", { class: "card" },
        h("div", { class: "controls" }, h("span", { class: "pair" }, h("label", { for: "filter" }, "Name has"), filter), h("span", { class: "pair" }, h("label", { for: "order" }, "Order"), order)),
        list, pager),
      jobs));

  async function load(same = false) {
    if (!same) cursors = [""];
    const found = await ask("studies", { contains: filter.value.trim(), order: order.value, limit: ROWS, cursor: cursors.at(-1) }, signal);
    renew(list, [found.items, filter.value.trim()], ([items, text]) => lines(items, text));
    const turn = (text, go, possible) => h("button", { disabled: !possible, on: { click: () => { go(); load(true); } } }, text);
    const pages = cursors.length > 1 || found.next !== null;
    keeping(pager, () => fill(pager, pages ? [turn("Earlier page", () => cursors.pop(), cursors.length > 1), turn("Next page", () => cursors.push(found.next), found.next !== null)] : []));
    if (!same) say(found.next === null ? `${found.items.length} studies` : `The first ${found.items.length} studies`);
  }

  const panel = new Jobs(jobs, { state: ["queued", "running", "paused"] }, signal, {
    title: h("h2", { id: "under-way" }, "Jobs under way"), empty: "No job is under way.", study: true, changed: () => load(true),
  });
  panel.begin();
  await load(true);
  for (;;) {
    await pause(AGAIN, signal).then(() => visible(signal));
    if (signal.aborted) return;
    await load(true);
  }
}

function newStudy() {
  if (session.changes) return h("a", { class: "button main", href: "#/new" }, "New study");
  return h("span", { class: "note" }, "Studies are begun with a token that is not for reading only.");
}

function lines(items, filter) {
  const columns = [
    { name: "Study", cell: (s) => h("a", { href: `#/studies/${encodeURIComponent(s.name)}` }, s.name) },
    { name: "State", cell: (s) => h("span", { class: `state ${s.state}` }, s.state) },
    { name: "Trials", number: true, cell: (s) => count(s.trials) },
    { name: "Measurements", number: true, cell: (s) => count(s.measurements) },
    { name: "Smallest", number: true, cell: (s) => (s.costs.bytes ? amount("bytes", s.costs.bytes[0]) : "–") },
    { name: "Best", cell: (s) => best(s) },
    { name: "Changed", cell: (s) => h("time", { datetime: s.updated, title: s.updated, class: "nowrap" }, ago(s.updated)) },
  ];
  const empty = filter ? `No study has “${filter}” in its name.` : "No studies yet. Begin one with a model and a little calibration data.";
  return table("Studies", columns, items, { empty });
}

/** The best of the first metrics. */
function best(study) {
  const names = Object.keys(study.metrics).filter((name) => bare(name) === name);
  const parts = names.slice(0, SHOWN).map((name) => {
    const [least, greatest] = study.metrics[name];
    return `${name} ${digits(study.better[name] === "higher" ? greatest : least)}`;
  });
  return parts.join(", ") || "–";
}
