// A list of jobs that is kept up to date: their progress, what may be done with them, what became of them.

import { act, ask, ofStudy, pause, session } from "./api.js";
import { fill, h, keeping, say } from "./dom.js";
import { ENDED, follow, visible } from "./live.js";
import { ago, count, digits, duration, sentences } from "./words.js";

const ROWS = 10;
const AGAIN = { active: 4, idle: 12 }; // seconds between two looks at the list
const MOVES = { pause: ["queued", "running"], resume: ["paused", "failed", "cancelled"], cancel: ["queued", "running", "paused"] };
const DONE = { pause: "paused", resume: "resumed", cancel: "cancelled" };

/** What a job was asked for, in a line. */
export function asked({ kind, request }) {
  const within = request.budgets?.length ? `within ${request.budgets.join(", ")}` : "";
  if (kind === "search") return `${request.schemes} ${request.hold ? `so that ${request.hold} holds` : within}`;
  if (kind === "profile") return `${request.schemes} by ${request.profiler?.name ?? "fisher"}`;
  if (kind === "export") return `trial ${request.trial}${request.format ? ` as ${request.format}` : ""}`;
  if (kind === "measure") return "one allocation";
  return `of ${request.metric ?? "kl"}`;
}

/** How far a job is, in words. */
export function progressWords(progress) {
  const parts = [`${progress.stage}: ${count(progress.done)} of ${count(progress.total)}`];
  if (progress.rate) parts.push(progress.rate >= 0.1 ? `${digits(progress.rate, 2)} a second` : `${digits(60 * progress.rate, 2)} a minute`);
  if (progress.seconds_left !== null && progress.done < progress.total) parts.push(`${duration(progress.seconds_left)} left`);
  return parts.join(" · ");
}

/** One job. options: { study (whether to name it), heading (its element), changed(job) }. */
export class Job {
  constructor(job, { study = false, heading = "h3", changed = () => undefined }) {
    Object.assign(this, { job, ofStudy: study, heading, changed, following: null });
    this.root = h("article", { class: "job", "aria-label": `Job ${job.id}` });
    this.head = h("div", {});
    this.bar = h("progress", { "aria-label": `Progress of job ${job.id}` });
    this.words = h("p", { class: "soft" });
    this.tail = h("div", {});
    this.wrong = h("div", { role: "alert" });
    this.root.append(this.head, this.bar, this.words, this.tail, this.wrong);
    this.update(job);
  }

  update(job) {
    const before = this.job.state;
    this.job = job;
    keeping(this.root, () => {
      fill(this.head, this.title(), h("p", { class: "soft" }, asked(job)));
      fill(this.tail, this.failure(), this.result(), this.buttons());
    });
    this.progress(job.progress);
    if (before !== job.state) {
      say(`Job ${job.id}, ${job.kind}: ${job.state}`);
      this.changed(job);
    }
  }

  title() {
    const { id, kind, study, state, updated } = this.job;
    return h("div", { class: "row" },
      h(this.heading, {}, h("a", { href: `#/jobs/${id}` }, `Job ${id}`), `, ${kind}`, this.ofStudy ? [" of ", h("a", { href: `#/${ofStudy(study)}` }, study)] : ""),
      h("span", {}, h("span", { class: `state ${state}` }, state), " ", h("time", { class: "soft nowrap", datetime: updated, title: updated }, ENDED.includes(state) || state === "paused" ? ago(updated) : "")));
  }

  progress(progress) {
    const { state } = this.job;
    const running = state === "running";
    this.bar.hidden = !running && !(state === "paused" && progress);
    if (progress && progress.total) Object.assign(this.bar, { max: progress.total, value: progress.done });
    else this.bar.removeAttribute("value");
    if (running && progress && progress.stage !== this.stage) say(`Job ${this.job.id}: ${progress.stage}`);
    this.stage = progress?.stage;
    this.words.textContent = state === "queued" ? "Waits for a worker." : running && !progress ? "Begins." : running || state === "paused" ? (progress ? progressWords(progress) : "") : "";
  }

  failure() {
    const { error, state, failures } = this.job;
    if (!error || state === "succeeded" || state === "cancelled") return null;
    const again = state === "failed" ? "" : `Tried again after ${failures === 1 ? "a failure" : `${failures} failures`}: `;
    return h("p", { class: "trouble" }, sentences(`${again}${error.text}`, error.hint), error.unit ? ` (${error.unit})` : "");
  }

  result() {
    const { kind, state, result, study, id } = this.job;
    if (state !== "succeeded") return null;
    if (kind === "export" || kind === "report") return h("p", {}, h("a", { href: `#/jobs/${id}` }, kind === "export" ? "The exported model’s files" : "The report"));
    const answers = result.answers ?? (result.trial ? [{ trial: result.trial, budgets: [] }] : []);
    return h("p", {}, answers.map(({ trial, budgets, hold }, i) => [i ? ", " : "", budgets.length || hold ? `${[hold, ...budgets].filter(Boolean).join(" and ")}: ` : "",
      h("a", { href: `#/${ofStudy(study)}/trials/${trial.id}` }, `trial ${trial.id}`)]));
  }

  buttons() {
    const moves = Object.keys(MOVES).filter((move) => MOVES[move].includes(this.job.state));
    if (!moves.length) return null;
    const why = session.changes ? null : "This token is for reading only.";
    return h("div", { class: "actions" }, moves.map((move) => h("button", {
      disabled: !session.changes, title: why, "aria-label": `${move[0].toUpperCase()}${move.slice(1)} job ${this.job.id}`,
      on: { click: (event) => this.move(move, event.target) },
    }, `${move[0].toUpperCase()}${move.slice(1)}`)));
  }

  async move(move, button) {
    button.disabled = true;
    fill(this.wrong);
    try {
      const { document } = await act(`jobs/${this.job.id}/${move}`);
      this.update(document);
      say(`Job ${this.job.id} is ${DONE[move]}`);
      this.root.querySelector("button")?.focus();
    } catch (error) {
      button.disabled = false;
      fill(this.wrong, h("p", { class: "trouble" }, sentences(error.message, error.hint)));
    }
  }

  /** Follow the job while it is under way. heard: given every event of its history. */
  follow(signal, heard = () => undefined, after = 0) {
    if (this.following || ENDED.includes(this.job.state)) return;
    this.following = follow(this.job.id, {
      event: heard,
      progress: (progress) => {
        if (progress.state !== this.job.state) ask(`jobs/${this.job.id}`, {}, signal).then((job) => this.update(job), () => undefined);
        else { this.job = { ...this.job, progress }; this.progress(progress); }
      },
      end: (job) => this.update(job),
    }, signal, after).finally(() => { this.following = null; });
  }
}

/** The newest jobs of a query. */
export class Jobs {
  /** options: { title (node), empty, study (whether to name it), changed() }. */
  constructor(root, query, signal, options) {
    Object.assign(this, { query, signal, options, cards: new Map(), rows: ROWS });
    this.list = h("div", {}, h("p", { class: "loading" }, "Loading"));
    this.more = h("div", { class: "actions" });
    fill(root, h("div", { class: "row" }, options.title), this.list, this.more);
  }

  /** Keep the list up to date until the view is left. */
  async begin() {
    while (!this.signal.aborted) {
      await this.look();
      const active = [...this.cards.values()].some(({ job }) => !ENDED.includes(job.state) && job.state !== "paused");
      await pause(active ? AGAIN.active : AGAIN.idle, this.signal).catch(() => undefined);
      await visible(this.signal);
    }
  }

  async look() {
    const found = await ask("jobs", { ...this.query, limit: this.rows }, this.signal).catch((error) => {
      if (!this.signal.aborted) fill(this.list, h("p", { class: "trouble" }, sentences(error.message, error.hint)));
      return null;
    });
    if (found === null) return;
    const ids = found.items.map((job) => job.id);
    const gone = [...this.cards.keys()].filter((id) => !ids.includes(id));
    for (const id of gone) this.cards.delete(id);
    for (const job of found.items) {
      const card = this.cards.get(job.id);
      if (!card) this.cards.set(job.id, new Job(job, this.options));
      else if (job.updated > card.job.updated || job.state !== card.job.state) card.update(job);
      if (job.state === "running" || job.state === "queued") this.cards.get(job.id).follow(this.signal);
    }
    const nodes = ids.map((id) => this.cards.get(id).root);
    const same = nodes.length === this.list.children.length && nodes.every((node, i) => node === this.list.children[i]);
    if (!same) fill(this.list, nodes.length ? nodes : h("p", { class: "soft" }, this.options.empty));
    if (gone.length) this.options.changed?.();
    fill(this.more, found.next === null ? [] : h("button", { class: "quiet", on: { click: () => { this.rows += ROWS; this.look(); } } }, "Older jobs"));
  }
}
