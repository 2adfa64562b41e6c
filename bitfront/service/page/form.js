// The form for a job, on a study that is there or that it begins.

import { Problem, act, ask, ofStudy, session } from "./api.js";
import { fill, get, h, say } from "./dom.js";
import { FIELDS, TASKS, TASK_MORE } from "./fields.js";
import { Fields } from "./inputs.js";
import { trialOf } from "./trials.js";
import { sentences } from "./words.js";

const TITLES = { search: "Search", profile: "Profile", measure: "Measure one allocation", export: "Export a trial", report: "Report" };
const WRITING = ["export", "report"];
const NO_MODEL = ["report"];

export async function show(root, [name = null], { query, signal, crumbs }) {
  crumbs(...(name === null ? [["New study", ""]] : [[name, `#/${ofStudy(name)}`], ["New job", ""]]));
  if (!session.changes) {
    fill(root, h("section", { class: "card" }, h("h1", {}, "Reading only"), h("p", {}, "This token is for reading only. Jobs are submitted with the token for everything.")));
    return;
  }
  const begun = name === null ? null : await ask(ofStudy(name), {}, signal).catch((error) => { if (error.status === 404) return null; throw error; });
  const form = new Form(root, name, begun);
  await form.begin(query, signal);
}

class Form {
  constructor(root, name, study) {
    Object.assign(this, { name, study, kind: "search", task: "language" });
    this.jobFields = h("div", {});
    this.taskFields = h("div", {});
    this.wrong = h("div", { id: "form-wrong", role: "alert", tabindex: -1 });
    this.named = new Fields([{ name: "study", label: "Name of the study", required: true, short: true }], "study");
    const own = study === null;
    fill(root, h("h1", { class: "head" }, name === null ? "New study" : `New job of ${name}`),
      h("form", { class: "card", novalidate: true, on: { submit: (event) => { event.preventDefault(); this.send(event.submitter); } } },
        name === null ? this.named.root : null, own ? this.taskPart(own) : null,
        h("fieldset", { class: "kinds" }, h("legend", { class: "unseen" }, "Kind of job"), this.kinds(own)),
        this.jobFields, own ? null : this.taskPart(own), this.wrong,
        h("div", { class: "actions" }, h("button", { class: "main" }, "Submit"), h("a", { class: "button", href: name === null ? "#/" : `#/${ofStudy(name)}` }, "Back"))));
  }

  kinds(own) {
    return session.meta.kinds.map((kind) => {
      const shut = own && !["search", "profile", "measure"].includes(kind) ? "needs a study that has been begun"
        : WRITING.includes(kind) && !session.meta.output ? "this server has no folder for it (--output)" : null;
      const box = h("input", { type: "radio", name: "kind", value: kind, disabled: shut !== null, on: { change: () => this.choose(kind) } });
      return h("label", { title: shut }, box, TITLES[kind] ?? kind, shut ? h("span", { class: "unseen" }, `: ${shut}`) : null);
    });
  }

  /** The task: asked for where the study is new, or was begun with a live model. */
  taskPart(own) {
    const box = h("select", { id: "task-kind", on: { change: () => this.chooseTask(box.value) } }, Object.keys(TASKS).map((kind) => h("option", { value: kind }, kind)));
    const inside = [h("div", { class: "fields" }, h("div", { class: "field short" }, h("label", { for: "task-kind" }, "Kind"), box)), this.taskFields];
    const needed = own || !this.study.settings.recipe;
    this.withTask = needed;
    this.taskRoot = needed
      ? h("fieldset", {}, h("legend", {}, "Model and data"), inside)
      : h("details", { class: "field", on: { toggle: (event) => { this.withTask = event.target.open; } } }, h("summary", {}, "Model and data: as the study was begun"), h("p", { class: "hint" }, "Other places of the same model and data; the study’s fingerprint must stay the same."), inside);
    return this.taskRoot;
  }

  async begin(query, signal) {
    this.chooseTask("language");
    const kind = query.get("kind");
    this.choose(kind in FIELDS ? kind : "search");
    if (this.kind === "report") this.job.set("edition", new Date().toISOString().slice(0, 16));
    const trial = query.get("trial");
    if (trial === null) return;
    if (this.kind === "export") this.job.set("trial", trial);
    if (this.kind === "measure") {
      const { layers } = await trialOf(this.study, trial, signal);
      this.job.set("schemes", JSON.stringify(Object.fromEntries(Object.entries(layers).map(([layer, { scheme }]) => [layer, scheme])), null, 1));
    }
  }

  choose(kind) {
    this.kind = kind;
    const box = document.querySelector(`input[name="kind"][value="${kind}"]`);
    if (box) box.checked = true;
    this.job = new Fields(FIELDS[kind], "job");
    fill(this.jobFields, this.job.root);
    fill(this.wrong);
    this.taskRoot.hidden = NO_MODEL.includes(kind);
    if (kind === "report") this.job.set("edition", new Date().toISOString().slice(0, 16));
  }

  chooseTask(kind) {
    this.task = kind;
    this.arguments = new Fields([...TASKS[kind], TASK_MORE], "task");
    fill(this.taskFields, this.arguments.root);
  }

  get withArguments() {
    return this.withTask && !NO_MODEL.includes(this.kind);
  }

  async send(button) {
    fill(this.wrong);
    const parts = [this.name === null ? this.named : null, this.job, this.withArguments ? this.arguments : null].filter(Boolean);
    const good = parts.map((fields) => fields.check()).every(Boolean);
    if (!good) return this.refuse("Some fields cannot be used as they are");
    const body = { kind: this.kind, ...this.job.value() };
    if (this.withArguments) body.task = { kind: this.task, arguments: this.arguments.value() };
    const name = this.name ?? this.named.value().study;
    button.disabled = true;
    try {
      const { status, document } = await act(`${ofStudy(name)}/jobs`, body);
      const target = WRITING.includes(this.kind) ? `#/jobs/${document.id}` : `#/${ofStudy(name)}`;
      location.hash = target;
      say(status === 202 ? `Job ${document.id} waits for a worker.` : `The same was asked before: job ${document.id}, which is ${document.state}.`);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.place(error);
    } finally {
      button.disabled = false;
    }
    return undefined;
  }

  /** Show a problem at the fields that it names, and what it says as a whole. */
  place(problem) {
    for (const { location, what } of problem.errors) {
      const path = location.filter((part) => part !== "body" && part !== this.kind).map(String);
      const place = path[0] === "task" && path[1] === "arguments" ? [this.arguments, path.slice(2)] : [this.job, path];
      place[0].wrong(place[1], problem.errors.length === 1 ? sentences(what, problem.hint) : sentences(what));
    }
    this.refuse(problem.message, problem.hint);
  }

  refuse(text, hint = "") {
    fill(this.wrong, h("p", { class: "trouble" }, sentences(text, hint)));
    (document.querySelector('[aria-invalid="true"]') ?? get("form-wrong")).focus();
  }
}
