// A job as it goes on: server-sent events read through fetch, which unlike EventSource sends a token.

import { ask, open, pause } from "./api.js";

const STREAMS = 2; // at once: browsers keep six connections to a server, for all tabs together
const AGAIN = 3; // seconds
export const ENDED = ["succeeded", "failed", "cancelled"];
let streams = 0;

/** Follow a job until it has ended. told: { event, progress, end }, functions of their documents. */
export async function follow(id, told, signal, after = 0) {
  let last = after;
  while (!signal.aborted) {
    await visible(signal);
    try {
      const seen = streams < STREAMS ? await stream(id, last, told, signal) : await poll(id, last, told, signal);
      last = seen.last;
      if (seen.ended) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) throw error;
    }
    await pause(AGAIN, signal);
  }
}

async function stream(id, after, told, signal) {
  const hidden = new AbortController();
  const hide = () => document.hidden && hidden.abort();
  document.addEventListener("visibilitychange", hide);
  let last = after;
  streams += 1;
  try {
    const both = AbortSignal.any([signal, hidden.signal]);
    const response = await open(`jobs/${id}/events`, { query: { after }, accept: "text/event-stream", signal: both });
    for await (const message of messages(response.body)) {
      if (message.event === "end") {
        told.end(message.data);
        return { last, ended: true };
      }
      if (message.id) last = message.id;
      (message.event === "progress" ? told.progress : told.event)(message.data);
    }
  } catch (error) {
    if (!hidden.signal.aborted) throw error;
  } finally {
    streams -= 1;
    document.removeEventListener("visibilitychange", hide);
  }
  return { last, ended: false };
}

async function poll(id, after, told, signal) {
  const found = await ask(`jobs/${id}/events`, { after }, signal);
  found.items.forEach(told.event);
  if (found.progress) told.progress({ state: found.state, ...found.progress });
  const ended = ENDED.includes(found.state);
  if (ended) told.end(await ask(`jobs/${id}`, {}, signal));
  return { last: found.after, ended };
}

/** The messages of a stream of events: { event, id, data }. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").map((line) => {
          const at = line.indexOf(":");
          return [line.slice(0, at), line.slice(at + 1).trim()];
        }));
        if (fields.data) yield { event: fields.event, id: Number(fields.id), data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => undefined); // it is closed already where the stream broke off
  }
}

/** Resolve when the page can be seen. */
export function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    const look = () => {
      if (!document.hidden || signal.aborted) {
        document.removeEventListener("visibilitychange", look);
        done();
      }
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}
