// The API: addresses beside this page, the token, problems, and a server that is away for a while.

import { get, say } from "./dom.js";
import { duration, sentences } from "./words.js";

const BASE = new URL("api/v1/", document.baseURI);
const KEY = "bitfront-token";
const LONGEST = 10; // seconds between two tries

/** What the server answered instead (RFC 9457). */
export class Problem extends Error {
  constructor(document) {
    super(document.detail);
    Object.assign(this, { hint: "", errors: [], ...document });
  }
}

export const session = {
  get token() { return sessionStorage.getItem(KEY); },
  set token(value) { value === null ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, value); },
  meta: null,
  get changes() { return this.meta?.changes ?? false; },
};

export function address(path, query = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    for (const item of [value].flat()) {
      if (item !== null && item !== undefined && item !== "") url.searchParams.append(name, item);
    }
  }
  return url;
}

export const ofStudy = (name) => `studies/${encodeURIComponent(name)}`;

/** The answer to a request; asks for a token where that is needed. Raises ``Problem``. */
export async function open(path, { query, method = "GET", body, accept = "application/json", signal } = {}) {
  for (;;) {
    const headers = { accept };
    const sent = session.token;
    if (sent) headers.authorization = `Bearer ${sent}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(address(path, query), {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-cache",
    });
    if (response.ok) return response;
    const found = await problemOf(response);
    if (response.status !== 401) throw found;
    if (session.token === sent) await askForToken(sent === null ? "" : found.message);
  }
}

async function problemOf(response) {
  const typed = response.headers.get("content-type")?.includes("problem+json");
  const fields = typed ? await response.json() : { status: response.status, detail: `the server answered ${response.status}` };
  return new Problem({ ...fields, wait: Number(response.headers.get("retry-after")) });
}

/** The document at a path. Goes on asking while the server is away, or has too much to do. */
export async function ask(path, query = {}, signal = undefined) {
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST)) {
    try {
      const response = await open(path, { query, signal });
      const found = await response.json();
      back();
      return found;
    } catch (error) {
      const away = error instanceof TypeError || error.status === 503 || error.status === 502 || error.status === 504;
      if (!away && error.status !== 429) throw error;
      if (away) gone(error, wait);
      await pause(Math.max(wait, error.wait || 0), signal);
    }
  }
}

/** What an action answers, with its status; a server that is away is told at once. */
export async function act(path, body = undefined) {
  if (!session.changes) throw new Problem({ detail: "this token is for reading only", hint: "use the token for everything", status: 403 });
  try {
    const response = await open(path, { method: "POST", body });
    return { status: response.status, document: await response.json() };
  } catch (error) {
    if (error instanceof TypeError) throw new Problem({ detail: "the server does not answer", hint: "nothing is lost: do it again when it does", status: 0 });
    throw error;
  }
}

/** Resolve after so many seconds; reject when ``signal`` aborts. */
export function pause(seconds, signal) {
  return new Promise((done, stop) => {
    const timer = setTimeout(done, 1000 * seconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); stop(signal.reason); }, { once: true });
  });
}

function gone(error, wait) {
  const banner = get("away");
  const why = error instanceof Problem ? error.message : "the server does not answer";
  banner.textContent = `${sentences(why)} Asked again in ${duration(wait)}; jobs go on meanwhile.`;
  banner.hidden = false;
}

function back() {
  if (get("away").hidden) return;
  get("away").hidden = true;
  say("The server answers again.");
}

let asking = null;

/** Ask the user for a token, once however many requests wait for it. */
function askForToken(wrong) {
  asking ??= new Promise((done) => {
    const dialog = get("token"), field = get("token-value");
    field.value = "";
    get("token-wrong").textContent = sentences(wrong);
    dialog.oncancel = (event) => event.preventDefault();
    dialog.addEventListener("close", () => {
      session.token = field.value.trim();
      field.value = "";
      asking = null;
      done();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
