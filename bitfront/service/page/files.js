// Downloads: what jobs wrote, and tables.

import { address, ask, open, session } from "./api.js";
import { fill, h, say, table } from "./dom.js";
import { amount, sentences } from "./words.js";

/**
 * Fetch something and keep it as a file. Without a token the browser does it by itself, at any size and
 * with ranges; a token has to be sent along, so the page fetches the whole and then keeps it.
 */
export async function download(url, name, button) {
  if (session.token === null) {
    keep(url, name);
    return;
  }
  const text = button.textContent;
  button.disabled = true;
  button.textContent = "Fetching …";
  try {
    const response = await open(url, { accept: "*/*" });
    const blob = URL.createObjectURL(await response.blob());
    keep(blob, name);
    setTimeout(() => URL.revokeObjectURL(blob), 60_000);
    say(`${name} is fetched.`);
  } finally {
    button.disabled = false;
    button.textContent = text;
  }
}

function keep(url, name) {
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** The files of an export or report that succeeded. */
export async function filesOf(job, root, signal) {
  const place = `jobs/${job.id}`;
  const wrong = h("div", { role: "alert" });
  const fetching = (url, name) => (event) => download(url, name, event.target).catch((error) => {
    fill(wrong, h("p", { class: "trouble" }, sentences(error.message, error.hint)));
  });
  const { items } = await ask(`${place}/files`, {}, signal);
  const total = items.reduce((sum, file) => sum + file.bytes, 0);
  const url = (file) => address(`${place}/files/${file.path.split("/").map(encodeURIComponent).join("/")}`);
  const action = (file) => [
    file.media_type === "text/html" && session.token === null
      ? h("a", { href: url(file), target: "_blank", rel: "noopener", class: "button" }, "Open") : null, " ",
    h("button", { "aria-label": `Download ${file.path}`, on: { click: fetching(url(file), file.path.split("/").at(-1)) } }, "Download")];
  fill(root, h("div", { class: "row" }, h("h2", {}, "Files"),
    h("button", { class: "main", on: { click: fetching(address(`${place}/archive`), `job-${job.id}.zip`) } }, `Download all (zip, ${amount("bytes", total)})`)),
    wrong,
    table("Files", [
      { name: "File", cell: (file) => file.path },
      { name: "Size", number: true, cell: (file) => amount("bytes", file.bytes) },
      { name: "SHA-256", cell: (file) => h("code", { title: file.sha256 }, file.sha256.slice(0, 12)) },
      { name: "", cell: action },
    ], items));
}
