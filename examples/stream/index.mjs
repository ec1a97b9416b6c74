import { setTimeout as pause } from "node:timers/promises";

const TEXT = "An answer that streams has begun before it is whole.";
const EVENTS = 5;

/** Stands for whatever makes an answer slow: a model, a database, another service. */
const PAUSE_MS = 30;

// When the caller hangs up the stream is cancelled, and with it the generator: it ends at its next yield.
async function* words() {
  for (const word of TEXT.split(" ")) {
    yield `${word} `;
    await pause(PAUSE_MS);
  }
  yield "\n";
}

/** Server-sent events. A browser that lost its connection says in Last-Event-ID where to go on. */
async function* events(afterId) {
  for (let id = afterId + 1; id <= EVENTS; id++) {
    yield `id: ${id}\ndata: ${JSON.stringify({ tick: id })}\n\n`;
    await pause(PAUSE_MS);
  }
}

const streamOf = (texts) => ReadableStream.from(texts).pipeThrough(new TextEncoderStream());

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/events") {
      const afterId = Number(request.headers.get("last-event-id") ?? 0);
      if (!Number.isSafeInteger(afterId) || afterId < 0)
        return new Response("Last-Event-ID is not one of ours.\n", { status: 400 });
      return new Response(streamOf(events(afterId)), {
        headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
      });
    }
    return new Response(streamOf(words()), {
      headers: { "content-type": "text/plain; charset=utf-8" },
    });
  },
};
