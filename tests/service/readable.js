// What cannot be read on the page: a list of sentences, evaluated in the browser by a test.
() => {
  const wrong = [];
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const text = (e) => (e.innerText ?? "").trim();
  const words = (ids) => ids.split(/\s+/).map((id) => document.getElementById(id)).map((e) => (e ? e.textContent : null));

  // names (WCAG 4.1.2): what is clicked or filled in says what it is
  for (const e of document.querySelectorAll("a[href], button, input, select, textarea, [role=region], progress, dialog, [tabindex='0']")) {
    if (!seen(e)) continue;
    const labels = [...(e.labels ?? [])].map((l) => l.textContent.trim()).join("");
    const by = e.getAttribute("aria-labelledby");
    const name = e.getAttribute("aria-label") ?? (by ? words(by).join("") : "") ?? "";
    if (!(name || labels || text(e) || e.title)) wrong.push(`no name: ${e.outerHTML.slice(0, 120)}`);
  }
  // references lead somewhere, ids are distinct
  for (const e of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
    const ids = `${e.getAttribute("aria-describedby") ?? ""} ${e.getAttribute("aria-labelledby") ?? ""}`.trim();
    if (words(ids).includes(null)) wrong.push(`refers to nothing: ${ids}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id).filter((id) => !id.startsWith("clip"));
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) wrong.push(`id twice: ${id}`);
  // headings: one of the first level, none that skips one
  const levels = [...document.querySelectorAll("main h1, main h2, main h3")].filter(seen).map((e) => Number(e.tagName[1]));
  levels.forEach((level, i) => { if (level > (levels[i - 1] ?? 0) + 1) wrong.push(`heading of level ${level} after ${levels[i - 1] ?? 0}`); });
  // landmarks, language, title, tables with heads
  for (const tag of ["main", "header", "nav"]) if (document.querySelectorAll(tag).length !== 1) wrong.push(`not one ${tag}`);
  if (!document.documentElement.lang || !document.title) wrong.push("no language or title");
  for (const e of document.querySelectorAll("table")) if (!e.caption || !e.querySelector("th[scope=col]")) wrong.push("a table without caption or heads");

  // contrast (WCAG 1.4.3): 4.5 of text to the nearest opaque ground; what is disabled is exempt
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 0.99) return color;
    }
    return [255, 255, 255, 1];
  };
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !seen(e) || e.closest("svg, option, noscript, [aria-disabled], :disabled, label:has(:disabled)")) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(ground(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) wrong.push(`contrast ${contrast.toFixed(2)}: ${text(e).slice(0, 40)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`wider than the screen: ${document.documentElement.scrollWidth}`);
  return wrong;
}
