import { Engine } from "./engine.mjs";
import {
  DATA,
  END,
  INVOKE,
  jsonFrame,
  NOWHERE,
  READY,
  RESTORED,
  textFrame,
  Wire,
} from "./wire.mjs";

const SEED = Buffer.alloc(32).toString("base64");
const INIT = { function: "rehearsal", version: 0, memoryMb: 0, env: {} };

const TARGETS = {
  fetch: {
    kind: "fetch",
    async call(request) {
      const body = request.method === "POST" ? await request.text() : request.url;
      return new Response(body, { headers: { "x-name": "value" } });
    },
  },
  handler: { kind: "handler", arity: 2, call: async (event) => ({ echo: event }) },
};

/**
 * Runs what every call runs, from bytes to bytes and without a function: frames are decoded by a wire of the same class, answered by a
 * built-in function of the same kind, and written to nowhere. So a clone finds it compiled, and its memory in use. `restores`: each turn
 * begins as in a process that was restored, and leaves numbers behind that can be foretold.
 */
export async function rehearse(kind, turns, restores = true) {
  if (turns === 0) return;
  const target = TARGETS[kind];
  let engine;
  const wire = new Wire(NOWHERE, {
    frame: (type, stream, payload) => engine.frame(type, stream, payload),
    batch: () => engine.batch(),
  });
  engine = new Engine(wire, (renewed) => {
    wire.send(jsonFrame(READY, 0, { runner: "rehearsal", ...renewed }));
    wire.flush();
  });
  await engine.serve(target, INIT);
  for (let turn = 1; turn <= turns; turn++) {
    wire.take(requestOf(turn, restores));
    // Answers leave at the end of a turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  }
  wire.close();
}

/** The frames of a call: with a body and without one in turn. */
function requestOf(turn, restores) {
  const hasBody = turn % 2 === 0;
  const invoke = {
    id: "inv_0",
    kind: turn % 4 === 0 ? "event" : "http",
    method: hasBody ? "POST" : "GET",
    url: "http://localhost/path?name=value",
    path: "/path?name=value",
    headers: [
      ["host", "localhost"],
      ["content-type", "application/json"],
    ],
    deadlineMs: 1000,
    hasBody,
  };
  // As it will be: what a restored process hears, and the call right behind it.
  const restored = { seed: SEED, nowMs: Date.now(), pid: process.pid };
  const frames = restores ? [jsonFrame(RESTORED, 0, restored)] : [];
  frames.push(jsonFrame(INVOKE, turn, invoke));
  if (hasBody) frames.push(textFrame(DATA, turn, '{"name":"value"}'));
  frames.push(textFrame(END, turn, ""));
  return Buffer.concat(frames);
}
