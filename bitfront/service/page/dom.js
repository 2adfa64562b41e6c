// Elements, made without markup: text is always text.

const shown = new WeakMap(); // element -> what it was filled with, as JSON
let made = 0; // selects, for their ids

/** An element. props: attributes; ``on``: event -> listener; null and false leave one out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const get = (id) => document.getElementById(id);

/** Replace what is in ``parent``. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return parent;
}

/** Change what is in ``parent``; an element in it that had the focus hands it to its successor. */
export function keeping(parent, change) {
  const name = (element) => element.getAttribute("href") ?? element.getAttribute("aria-label") ?? element.id;
  const before = parent.contains(document.activeElement) ? document.activeElement : null;
  change();
  if (before === null || before.isConnected) return;
  [...parent.querySelectorAll("a, button, input, select, summary, [tabindex]")].find((element) => name(element) === name(before))?.focus();
}

/** Fill ``parent`` with what ``make`` makes of ``data``, where that is other than it was. */
export function renew(parent, data, make) {
  const text = JSON.stringify(data);
  if (shown.get(parent) === text) return;
  shown.set(parent, text);
  keeping(parent, () => fill(parent, make(data)));
}

/** Say something to those who listen to the page. */
export function say(text) {
  get("said").textContent = "";
  setTimeout(() => { get("said").textContent = text; }, 50);
}

/** A table. columns: [{ name, number, cell: (row) => text or nodes }]. */
export function table(caption, columns, rows, { empty = "Nothing yet.", row = () => ({}) } = {}) {
  const head = h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.number ? "number" : null }, c.name)));
  const body = rows.map((item) => h("tr", row(item), columns.map((c, i) => {
    const props = { class: c.number ? "number" : null, scope: i ? null : "row" };
    return h(i ? "td" : "th", props, c.cell(item));
  })));
  if (!rows.length) body.push(h("tr", {}, h("td", { colspan: columns.length, class: "soft" }, empty)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, head), h("tbody", {}, body)));
}

/** The colour that a property of the style has now. */
export function color(name) {
  const probe = h("span", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** A labelled select. options: [[value, text]]. */
export function select(label, options, value, change) {
  const id = `select-${(made += 1)}`;
  const element = h("select", { id, on: { change: () => change(element.value) } },
    options.map(([v, text]) => h("option", { value: v, selected: v === value }, text)));
  return h("span", { class: "pair" }, h("label", { for: id }, label), element);
}

/** A labelled box to tick. */
export function check(label, value, change) {
  const element = h("input", { type: "checkbox", checked: value, on: { change: () => change(element.checked) } });
  return h("label", { class: "check" }, element, h("span", {}, label));
}
