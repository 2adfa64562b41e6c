// Labelled inputs of a form, from a description of its fields (fields.js).

import { fill, h } from "./dom.js";

/** Some fields, and what is in them. */
export class Fields {
  /** prefix: of the ids of the elements. */
  constructor(described, prefix) {
    this.fields = described.map((field, i) => made(field, `${prefix}-${field.name || `more-${i}`}`));
    this.root = h("div", { class: "fields" }, this.fields.map((field) => field.root));
  }

  set(name, value) {
    this.fields.find((field) => field.name === name).input.value = value;
  }

  /** Whether everything can be sent; says at each field what is wrong. */
  check() {
    return this.fields.map((field) => {
      const text = field.input.value.trim();
      let why = field.required && !text ? `${field.label} is needed` : "";
      if (text && field.number && !Number.isFinite(Number(text))) why = "Write a number";
      if (text && field.json) why = jsonWrong(text);
      tell(field, why);
      return !why;
    }).every(Boolean);
  }

  /** The object that the fields spell. Empty ones are left out. */
  value() {
    const found = {};
    for (const field of this.fields) {
      const text = field.input.value.trim();
      if (!text) continue;
      const value = field.number ? Number(text) : field.json ? JSON.parse(text) : field.list ? text.split(/[\s,;]+/).filter(Boolean) : text;
      if (field.name) merge(found, field.name.split(".").reduceRight((inner, part) => ({ [part]: inner }), value));
      else merge(found, value);
    }
    return found;
  }

  /** Say at the field that a path of the request leads to that something is wrong. */
  wrong(path, what) {
    const names = path.map((_, i) => path.slice(0, path.length - i).join("."));
    const field = names.map((name) => this.fields.find((f) => f.name === name)).find(Boolean) ?? this.fields.find((f) => f.name === "");
    if (field) tell(field, what);
  }
}

function made(field, id) {
  const described = [field.hint ? `${id}-hint` : null, `${id}-wrong`].filter(Boolean).join(" ");
  const props = { id, name: field.name, required: field.required, "aria-describedby": described, autocomplete: "off", spellcheck: "false" };
  const input = field.options
    ? h("select", props, field.options.map((option) => h("option", { value: option }, field.words?.[option] ?? option)))
    : h(field.json ? "textarea" : "input", field.json ? props : { ...props, type: "text", inputmode: field.number ? "decimal" : null, value: field.value });
  const wrong = h("p", { class: "wrong", id: `${id}-wrong` });
  input.addEventListener("input", () => tell({ input, wrong }, ""));
  const root = h("div", { class: field.short ? "field short" : "field" },
    h("label", { for: id }, field.label, field.required ? h("span", { class: "soft" }, " (needed)") : ""), input,
    field.hint ? h("p", { class: "hint", id: `${id}-hint` }, field.hint) : null, wrong);
  return { ...field, input, wrong, root };
}

function tell({ input, wrong }, text) {
  fill(wrong, text);
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function jsonWrong(text) {
  try {
    const value = JSON.parse(text);
    return value === null || typeof value !== "object" || Array.isArray(value) ? "Write an object, like {}" : "";
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
}

/** Put what is in ``more`` into ``into``, objects within objects. */
function merge(into, more) {
  for (const [name, value] of Object.entries(more)) {
    const both = [into[name], value].every((v) => v !== null && typeof v === "object" && !Array.isArray(v));
    if (both) merge(into[name], value);
    else into[name] = value;
  }
}
