// The front of a study: its axes, the scatter, a budget and the best within it, the same as a table.

import { address, ask, ofStudy } from "./api.js";
import { Axis } from "./chart.js";
import { check, fill, h, keeping, say, select, table } from "./dom.js";
import { download } from "./files.js";
import { Scatter } from "./scatter.js";
import { Tip } from "./tip.js";
import { summaryOf } from "./trials.js";
import { bare, cost, count, digits, figure, many, metricUnit, sentences } from "./words.js";

const MOST = 1000; // points of the scatter
const STEPS = 400; // of the budget's slider; at the last one there is no budget
const PREDICTED = "kl"; // what searches go by

export class Front {
  /** study: its document. chosen: (trial or null). */
  constructor(root, study, query, signal, choose) {
    Object.assign(this, { root, study, signal, choose, points: null, chosen: null, only: false, predicted: true, step: STEPS });
    this.names = { cost: Object.keys(study.costs), metric: Object.keys(study.metrics) };
    this.within = query.getAll("within");
    this.x = this.pick(query.get("x"), ["bytes", ...this.names.cost, ...this.names.metric]);
    this.y = this.pick(query.get("y"), ["kl", ...this.names.metric, ...this.names.cost]);
    this.log = { x: null, y: null };
    this.build();
  }

  pick(wanted, names) {
    const all = [...this.names.cost, ...this.names.metric];
    return [wanted, ...names].find((name) => all.includes(name));
  }

  isCost(name) {
    return this.names.cost.includes(name);
  }

  build() {
    this.bar = h("div", { class: "controls" });
    this.box = h("div", { class: "plot", tabindex: 0, role: "application", on: { keydown: (event) => this.key(event) },
      "aria-label": "Scatter of trials. Left and right arrow keys walk along the front, Enter opens the trial. The table below has the same figures." });
    this.keys = h("ul", { class: "keys", "aria-hidden": "true" });
    this.slider = h("input", { type: "range", id: "budget", min: 0, max: STEPS, value: STEPS, on: { input: () => this.slide() } });
    this.amount = h("span", { class: "amount", "aria-hidden": "true" });
    this.best = h("p", { class: "best", "aria-live": "polite" });
    this.note = h("p", { class: "note" });
    this.rows = h("div", { class: "long" });
    this.problem = h("div", { role: "alert" });
    this.label = h("label", { for: "budget" });
    fill(this.root, h("div", { class: "row" }, h("h2", {}, "Front"), this.tools()), this.bar, this.problem, this.box,
      this.keys, h("div", { class: "budget" }, this.label, this.slider, this.amount, this.best), this.note, this.rows);
    this.scatter = new Scatter(this.box, {
      hover: (index, left, top) => this.hover(index, left, top),
      choose: (index) => this.take(this.points.items[index].id),
      move: (share) => { this.slider.value = Math.round(share * STEPS); this.slide(); },
    });
    this.tip = new Tip(this.box, (id) => summaryOf(this.study, id, this.signal));
    this.themed = () => this.draw();
    document.addEventListener("theme", this.themed);
    this.signal.addEventListener("abort", () => this.end());
    this.controls();
  }

  tools() {
    const path = `${ofStudy(this.study.name)}/front`;
    const csv = (event) => {
      event.preventDefault();
      const query = { x: this.x, y: this.y, within: this.within, format: "csv" };
      download(address(path, query), `front of ${this.study.name}.csv`, event.target);
    };
    return h("div", { class: "actions" },
      h("button", { class: "quiet", on: { click: () => this.scatter.whole() } }, "Whole view"),
      h("button", { class: "quiet", on: { click: () => this.scatter.picture(`front of ${this.study.name}`) } }, "Picture (SVG)"),
      h("button", { class: "quiet", on: { click: csv } }, "Table (CSV)"));
  }

  controls() {
    const options = [...this.names.cost, ...this.names.metric].map((name) => [name, name]);
    const axis = (which, label) => select(label, options, this[which], (value) => {
      this[which] = value;
      this.log[which] = null;
      this.step = STEPS;
      this.load();
    });
    const limits = h("input", { type: "text", id: "limits", size: 20, value: this.within.join(" "), placeholder: "kl<=0.1 700MB", on: { change: () => { this.within = limits.value.split(/[\s,]+/).filter(Boolean); this.load(); } } });
    this.logs = { x: check("log", false, (on) => { this.log.x = on; this.draw(); }), y: check("log", false, (on) => { this.log.y = on; this.draw(); }) };
    this.guesses = check("Predicted", this.predicted, (on) => { this.predicted = on; this.draw(); });
    fill(this.bar, axis("x", "Across"), this.logs.x, axis("y", "Up"), this.logs.y,
      h("span", { class: "pair" }, h("label", { for: "limits" }, "Only within"), limits),
      check("Feasible only", this.only, (on) => { this.only = on; this.draw(); }), this.guesses);
  }

  /** Ask for the points and draw them. */
  async load() {
    const query = { x: this.x, y: this.y, within: this.within, limit: MOST };
    const place = new URLSearchParams([["x", this.x], ["y", this.y], ...this.within.map((w) => ["within", w])]);
    history.replaceState(null, "", `#/${ofStudy(this.study.name)}?${place}`);
    const asked = (this.asked = Symbol("asked"));
    try {
      const found = await ask(`${ofStudy(this.study.name)}/points`, query, this.signal);
      if (asked !== this.asked) return;
      this.points = found;
      fill(this.problem);
      this.draw();
    } catch (error) {
      if (this.signal.aborted) return;
      fill(this.problem, h("p", { class: "trouble" }, sentences(error.message, error.hint)));
    }
  }

  axis(which) {
    const name = this[which], { items } = this.points;
    const weights = new Set(items.map((item) => item.weights)).size === 1 ? items[0].weights : null;
    const values = items.map((item) => item[which]);
    if (which === "y" && this.guessing) values.push(...items.map((item) => item.predicted).filter((v) => v !== null));
    return new Axis(name, values, { isCost: this.isCost(name), unit: metricUnit(this.study, name), weights, log: this.log[which] });
  }

  get guessing() {
    return this.predicted && !this.isCost(this.y) && bare(this.y) === PREDICTED;
  }

  draw() {
    if (!this.points) return;
    const { items, knee } = this.points;
    this.guesses.hidden = this.isCost(this.y) || bare(this.y) !== PREDICTED;
    this.box.hidden = this.slider.disabled = !items.length;
    if (items.length) {
      this.across = this.axis("x");
      this.up = this.axis("y");
      for (const [which, axis] of [["x", this.across], ["y", this.up]]) {
        Object.assign(this.logs[which].firstChild, { checked: axis.log, disabled: !axis.canLog });
      }
      this.slider.value = this.step;
      this.view = { items, x: this.across, y: this.up, limit: this.limit, feasible: (item) => this.feasible(item),
        only: this.only, predicted: this.guessing, chosen: this.chosen, knee };
      this.scatter.draw(this.view);
    }
    this.tell();
    this.list();
  }

  slide() {
    this.step = Number(this.slider.value);
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      this.scatter.draw({ ...this.view, limit: this.limit });
      this.tell();
      this.mark();
    });
  }

  /** The budget on what is across, null for none. */
  get limit() {
    return this.step === STEPS ? null : this.across.value(this.step / STEPS);
  }

  feasible(item) {
    const limit = this.limit;
    if (limit === null) return true;
    return this.points.senses[0] === "max" ? item.x >= limit : item.x <= limit;
  }

  /** The best trial within the budget, undefined where there is none. */
  bestWithin() {
    const sign = this.points.senses[1] === "max" ? -1 : 1;
    return this.points.items.filter((item) => this.feasible(item)).sort((a, b) => sign * (a.y - b.y) || a.x - b.x)[0];
  }

  words(which, value) {
    const name = this[which], weights = this.points.items[0]?.weights;
    return this.isCost(name) ? cost(name, value, weights) : `${digits(value)} ${metricUnit(this.study, name)}`.trim();
  }

  tell() {
    const { items, trials, front } = this.points;
    const least = this.points.senses[0] === "max";
    this.label.textContent = `${least ? "Least" : "Budget on"} ${this.x}`;
    const text = !items.length ? "" : this.limit === null ? "no limit" : this.words("x", this.limit);
    this.amount.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    const best = this.bestWithin();
    fill(this.best, !items.length ? "No trial has both figures within these limits." : !best ? "No trial is within this budget." : [
      this.limit === null ? "Best: " : "Best within it: ", h("a", { href: this.link(best.id) }, `trial ${best.id}`),
      `, ${this.y} ${this.words("y", best.y)} at ${this.x} ${this.words("x", best.x)}`]);
    const kept = items.length < trials ? `Shown are ${count(items.length)} of ${many(trials, "trial")}: those on the front, and others evenly along ${this.x}. ` : "";
    this.note.textContent = `${kept}${many(front, "trial is", "trials are")} on the front${kept ? "" : `, of ${count(trials)}`}.`;
    const key = (kind, tint, label) => { const i = h("i", { class: kind }); if (tint) i.style.background = tint; return h("li", {}, i, label); };
    fill(this.keys, key("round", "var(--front)", "on the front, ± one standard error"), this.points.knee === null ? null : key("diamond", "var(--front)", "its knee"),
      key("round", "var(--dim)", "dominated"), this.guessing ? key("hollow", "", "predicted by the search") : null);
  }

  list() {
    const { knee } = this.points;
    const rows = this.points.items.filter((item) => item.on_front);
    const guess = bare(this.y) === PREDICTED && !this.isCost(this.y);
    const columns = [
      { name: "Trial", cell: (item) => [h("a", { href: this.link(item.id) }, `Trial ${item.id}`), item.id === knee ? " (knee)" : ""] },
      { name: this.x, number: true, cell: (item) => this.words("x", item.x) },
      { name: `${this.y}`, number: true, cell: (item) => (this.isCost(this.y) ? this.words("y", item.y) : figure({ value: item.y, stderr: item.stderr })) },
      ...(guess ? [{ name: "predicted", number: true, cell: (item) => digits(item.predicted) }, { name: "expected", number: true, cell: (item) => digits(item.expected) }] : []),
      { name: "budgets", cell: (item) => item.budgets.join(", ") || "–" },
      { name: "solver", cell: (item) => item.solver },
      { name: "Show", cell: (item) => h("button", { class: "quiet", "aria-label": `Show trial ${item.id} below`, on: { click: () => this.take(item.id) } }, "show") },
    ];
    keeping(this.rows, () => fill(this.rows, h("h3", { class: "unseen" }, "Trials on the front"), table(`Trials on the front of ${this.y} and ${this.x}`, columns, rows, { empty: "No trials yet.", row: (item) => ({ "data-trial": item.id }) })));
    this.mark();
  }

  mark() {
    for (const row of this.rows.querySelectorAll("tr[data-trial]")) {
      const item = this.points.items.find(({ id }) => String(id) === row.dataset.trial);
      row.hidden = this.only && !this.feasible(item);
      if (item.id === this.chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  /** Draw no more. */
  end() {
    document.removeEventListener("theme", this.themed);
    this.scatter.end();
  }

  /** Whether the figures of ``study`` are those that can be chosen. */
  complete(study) {
    return Object.keys(study.costs).join() === this.names.cost.join() && Object.keys(study.metrics).join() === this.names.metric.join();
  }

  link(id) {
    return `#/${ofStudy(this.study.name)}/trials/${id}`;
  }

  /** Choose a trial: ring it, and tell whoever shows it. */
  take(id) {
    this.chosen = id;
    this.draw();
    this.choose(id);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.points) return;
    const walk = this.points.items.filter((item) => item.on_front && (!this.only || this.feasible(item)));
    const at = walk.findIndex((item) => item.id === this.chosen);
    const next = { ArrowLeft: walk[Math.max(at - 1, 0)], ArrowRight: walk[Math.min(at + 1, walk.length - 1)] }[event.key];
    if (next) {
      event.preventDefault();
      this.take(next.id);
      say(`Trial ${next.id}: ${this.x} ${this.words("x", next.x)}, ${this.y} ${this.words("y", next.y)}`);
    } else if (event.key === "Enter" && this.chosen !== null) {
      location.hash = this.link(this.chosen);
    }
  }

  hover(index, left, top) {
    const item = index === null ? null : this.points.items[index];
    if (item === null) this.tip.hide();
    else this.tip.show(item.id, this.remarks(item), left, top);
  }

  /** What is said of a trial at once, line by line. */
  remarks(item) {
    const y = this.isCost(this.y) ? this.words("y", item.y) : figure({ value: item.y, stderr: item.stderr });
    const guess = bare(this.y) === PREDICTED && item.predicted !== null;
    return [item.on_front ? "on the front" : "dominated", `${this.x} ${this.words("x", item.x)}`, `${this.y} ${y}`,
      guess ? `predicted ${digits(item.predicted)}, expected ${digits(item.expected)}` : "",
      item.budgets.length ? `for ${item.budgets.join(", ")}, by ${item.solver}` : `by ${item.solver}`];
  }
}
