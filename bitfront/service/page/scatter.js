// The scatter of a study's trials: points, the front, what is hovered, the line of a budget.

import { color, fill, h } from "./dom.js";
import { OPTIONS, layout, plotly } from "./chart.js";

const MARGIN = { l: 84, r: 18, t: 14, b: 52 }; // pixels around the plot's area
const FEW = 300; // points up to which the predictions of dominated ones are drawn too
const FAINT = 0.16; // opacity of a trial that is over the budget

export class Scatter {
  /** told: { hover(index, x, y) or hover(null), choose(index), move(share) }. */
  constructor(box, told) {
    this.told = told;
    this.box = box;
    this.range = { x: null, y: null }; // a zoom; null for all
    this.area = h("div", { class: "area" });
    this.line = h("div", { class: "limit", hidden: true });
    fill(box, this.area, this.line, h("div", { class: "away" }, "Loading the chart …"));
    this.line.addEventListener("pointerdown", (event) => this.drag(event));
    this.resized = new ResizeObserver(() => this.view && this.draw(this.view));
    this.resized.observe(box);
  }

  /** view: { items, x, y (axes), limit (value or null), feasible (item -> bool), only, predicted, chosen, knee }. */
  async draw(view) {
    this.view = view;
    const library = await plotly();
    if (view !== this.view || !this.box.isConnected) return;
    this.box.querySelector(".away")?.remove();
    const { x, y } = view;
    const ranges = { x: this.range.x ?? x.full, y: this.range.y ?? y.full };
    const drawn = await library.react(this.area, this.traces(view), layout({
      margin: MARGIN, height: this.box.clientHeight, width: this.box.clientWidth,
      xaxis: x.settings(ranges.x), yaxis: y.settings(ranges.y),
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    }), OPTIONS);
    if (!this.listening) this.listen(drawn);
    this.place(ranges.x);
  }

  traces({ items, x, y, feasible, only, predicted, chosen, knee }) {
    const shown = items.map((item, i) => ({ item, i, can: feasible(item) })).filter(({ can }) => can || !only);
    const points = (found, more) => ({
      type: "scatter", mode: "markers", hoverinfo: "none",
      x: found.map(({ item }) => x.at(item.x)), y: found.map(({ item }) => y.at(item.y)),
      customdata: found.map(({ i }) => i), ...more,
    });
    // one style for all points where that is so: plotly draws them several times as fast
    const opacity = (found, most) => (found.every(({ can }) => can) ? most : found.map(({ can }) => (can ? most : FAINT)));
    const dim = shown.filter(({ item }) => !item.on_front), best = shown.filter(({ item }) => item.on_front);
    const bent = best.filter(({ item }) => item.id === knee);
    const errors = best.map(({ item }) => (item.stderr ?? 0) / y.size);
    const told = predicted ? shown.filter(({ item }) => item.predicted !== null && (item.on_front || items.length <= FEW)) : [];
    const made = [
      points(told, {
        name: "predicted", y: told.map(({ item }) => y.at(item.predicted)),
        marker: { size: 8, symbol: "square-open", color: color("--warm"), opacity: opacity(told, 1), line: { width: 1.5 } },
      }),
      points(dim, { name: "dominated", marker: { size: 8, color: "#868e96", opacity: opacity(dim, 0.7), line: { width: 0 } } }),
      points(best, {
        name: "front", mode: "lines+markers", line: { color: "#1c7ed6", width: 1.5 },
        error_y: { array: errors, thickness: 1, width: 3, color: "#1c7ed6" },
        marker: { size: 11, color: "#1c7ed6", opacity: opacity(best, 1), line: { width: 0 } },
      }),
      points(bent, { name: "knee", marker: { size: 15, symbol: "diamond", color: "#1c7ed6", opacity: opacity(bent, 1), line: { width: 0 } } }),
    ];
    const ring = shown.filter(({ item }) => item.id === chosen);
    made.push(points(ring, { hoverinfo: "skip", marker: { size: 21, symbol: "circle-open", color: color("--ink"), line: { width: 2 } } }));
    return made;
  }

  listen(drawn) {
    this.listening = true;
    drawn.on("plotly_hover", ({ points: [point] }) => {
      this.told.hover(point.customdata, MARGIN.l + point.xaxis.d2p(point.x), MARGIN.t + point.yaxis.d2p(point.y));
    });
    drawn.on("plotly_unhover", () => this.told.hover(null));
    drawn.on("plotly_click", ({ points: [point] }) => this.told.choose(point.customdata));
    drawn.on("plotly_doubleclick", () => this.whole());
    drawn.on("plotly_relayout", (change) => {
      for (const axis of ["x", "y"]) {
        if (`${axis}axis.range[0]` in change) this.range[axis] = [change[`${axis}axis.range[0]`], change[`${axis}axis.range[1]`]];
      }
      this.draw(this.view);
    });
  }

  /** Show everything again after a zoom. */
  whole() {
    this.range = { x: null, y: null };
    this.draw(this.view);
  }

  get width() {
    return this.box.clientWidth - MARGIN.l - MARGIN.r;
  }

  place(range) {
    const { limit, x } = this.view;
    const share = limit === null ? 1 : x.share(limit, range);
    this.line.hidden = share < 0 || share > 1;
    this.line.style.left = `${MARGIN.l + share * this.width}px`;
    this.line.style.top = `${MARGIN.t}px`;
    this.line.style.bottom = `${MARGIN.b}px`;
  }

  drag(begun) {
    begun.preventDefault();
    this.line.setPointerCapture(begun.pointerId);
    const move = (event) => {
      const range = this.range.x ?? this.view.x.full, full = this.view.x.full;
      const along = (event.clientX - this.box.getBoundingClientRect().left - MARGIN.l) / this.width;
      const place = range[0] + along * (range[1] - range[0]);
      this.told.move(Math.min(1, Math.max(0, (place - full[0]) / (full[1] - full[0]))));
    };
    const end = () => {
      this.line.removeEventListener("pointermove", move);
      this.line.removeEventListener("pointerup", end);
      this.line.removeEventListener("pointercancel", end);
    };
    this.line.addEventListener("pointermove", move);
    this.line.addEventListener("pointerup", end);
    this.line.addEventListener("pointercancel", end);
  }

  /** A picture of the chart, as a file. */
  async picture(name) {
    (await plotly()).downloadImage(this.area, { format: "svg", filename: name, width: this.box.clientWidth, height: this.box.clientHeight });
  }

  end() {
    this.resized.disconnect();
    if (this.listening) window.Plotly.purge(this.area);
  }
}
