// What is said beside the point that the pointer is at.

import { fill, h } from "./dom.js";

const WAIT = 150; // milliseconds at a point before more of it is asked for
const HEIGHT = 150; // pixels, at most
const ASIDE = 14;

export class Tip {
  /** box: what it lies in. more: id -> a promise of a further line. */
  constructor(box, more) {
    Object.assign(this, { box, more, known: new Map(), root: h("div", { class: "tip", hidden: true }) });
    box.append(this.root);
  }

  hide() {
    clearTimeout(this.dwell);
    this.root.hidden = true;
  }

  /** lines: texts. left, top: of the point, in pixels of the box. */
  show(id, [first, ...lines], left, top) {
    clearTimeout(this.dwell);
    const last = h("p", { class: "soft" }, this.known.get(id) ?? "");
    fill(this.root, h("p", {}, h("strong", {}, `Trial ${id}`), ` · ${first}`), lines.filter(Boolean).map((line) => h("p", {}, line)), last);
    const right = left > this.box.clientWidth / 2;
    this.root.style.left = right ? "" : `${left + ASIDE}px`;
    this.root.style.right = right ? `${this.box.clientWidth - left + ASIDE}px` : "";
    this.root.style.top = `${Math.max(0, Math.min(top, this.box.clientHeight - HEIGHT))}px`;
    this.root.hidden = false;
    if (!this.known.has(id)) this.dwell = setTimeout(() => this.add(id, last), WAIT);
  }

  async add(id, place) {
    const line = await this.more(id).catch((error) => error.message ?? "");
    this.known.set(id, line);
    place.textContent = line;
  }
}
