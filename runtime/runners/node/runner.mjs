import { writeSync } from "node:fs";
import { offerFetch } from "./call-request.mjs";
import { Engine } from "./engine.mjs";
import { captureOutput } from "./logs.mjs";
import { guardRandom } from "./renewal.mjs";
import { EXIT_USAGE, jsonFrame, READY, Wire } from "./wire.mjs";

guardRandom();
offerFetch();
const fd = Number(process.env.CLOISTER_FD ?? 3);
delete process.env.CLOISTER_FD;
// Of libc alone, which has read it (runtime/images).
delete process.env.MALLOC_ARENA_MAX;

let engine;
let wire;
try {
  wire = new Wire(fd, {
    frame: (type, stream, payload) => engine.frame(type, stream, payload),
    batch: () => engine.batch(),
  });
} catch {
  writeSync(2, `File descriptor ${fd} is no socket: this program is started by sandboxd.\n`);
  process.exit(EXIT_USAGE);
}
engine = new Engine(wire, sayReady);
captureOutput(() => engine.log);
engine.watchProcess();

// A cold start sends INIT before this process was up: what its function does not need is then not loaded. Otherwise a prepared
// cell waits, and has the time to load all a function may need.
setImmediate(async () => {
  if (engine.begun) return;
  const { preload } = await import("./preload.mjs");
  await preload(engine);
  if (!engine.begun) sayReady();
});

let ready;
/** `renewed`: what a restored runner has to tell. */
function sayReady(renewed) {
  if (ready && !renewed) return;
  ready ??= {
    runner: "node",
    holds: true,
    version: process.versions.node,
    bootMs: Math.round(performance.now() * 10) / 10,
  };
  wire.send(jsonFrame(READY, 0, { ...ready, ...renewed }));
  wire.flush();
}
