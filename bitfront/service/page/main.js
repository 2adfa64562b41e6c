// The page: what the address after # shows, and what stands around it.

import { ask, session } from "./api.js";
import * as compare from "./compare.js";
import { fill, get, h } from "./dom.js";
import * as form from "./form.js";
import * as job from "./job.js";
import * as studies from "./studies.js";
import * as study from "./study.js";
import * as trial from "./trial.js";
import { sentences } from "./words.js";

// pattern -> view; its groups are given to the view, decoded
const ROUTES = [
  [/^\/?$/, studies],
  [/^\/new$/, form],
  [/^\/studies\/([^/]+)$/, study],
  [/^\/studies\/([^/]+)\/new$/, form],
  [/^\/studies\/([^/]+)\/trials\/(\d+)$/, trial],
  [/^\/studies\/([^/]+)\/compare\/(\d+)\/(\d+)$/, compare],
  [/^\/jobs\/(\d+)$/, job],
];
let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query] = location.hash.slice(1).split("?");
  const main = get("main");
  const root = fill(main, h("div", { class: "view" })).firstChild;
  fill(root, h("p", { class: "loading" }, "Loading"));
  try {
    session.meta ??= await ask("meta", {}, signal);
    get("reading").hidden = session.changes;
    get("forget").hidden = session.token === null;
    get("openapi").hidden = session.token !== null; // a link sends none
    const [match, view] = ROUTES.map(([pattern, v]) => [path.match(pattern), v]).find(([m]) => m) ?? [null, null];
    if (match === null) throw Object.assign(new Error(`there is nothing at ${path}`), { hint: "begin at the studies" });
    const names = match.slice(1).map((part) => part && decodeURIComponent(part));
    await view.show(root, names, { query: new URLSearchParams(query), signal, crumbs });
  } catch (error) {
    if (signal.aborted) return;
    fill(root, failure(error));
    if (error.status === undefined && !error.hint) console.error(error);
  }
}

/** What is shown in place of a view that cannot be. */
function failure(error) {
  return h("section", { class: "card", role: "alert" },
    h("h1", {}, "This cannot be shown"),
    h("p", {}, sentences(error.message, error.hint)),
    h("p", {}, h("a", { href: "#/" }, "All studies")));
}

/** Where the user is. parts: [text, address], the last one without an address. */
function crumbs(...parts) {
  const every = [["Studies", "#/"], ...parts];
  document.title = [...parts.map(([text]) => text).reverse(), "Bitfront"].join(" · ");
  fill(get("crumbs"), h("ol", {}, every.map(([text, href], i) => h("li", {},
    i < every.length - 1 ? h("a", { href }, text) : h("span", { "aria-current": "page" }, text)))));
}

function theme() {
  const choice = get("theme");
  choice.value = document.documentElement.dataset.theme;
  choice.addEventListener("change", () => {
    document.documentElement.dataset.theme = choice.value;
    localStorage.setItem("bitfront-theme", choice.value);
    document.dispatchEvent(new Event("theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
}

theme();
get("forget").addEventListener("click", () => { session.token = null; location.reload(); });
get("skip").addEventListener("click", (event) => { event.preventDefault(); get("main").focus(); });
window.addEventListener("hashchange", () => show().then(() => { window.scrollTo(0, 0); get("main").focus({ preventScroll: true }); }));
show();
