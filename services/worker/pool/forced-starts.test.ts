import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ForcedStart } from "#contracts/comparison";
import type { VersionSpec } from "#contracts/function";
import { wholeAnswer } from "../sandbox/index.ts";
import { FunctionFolders, pythonLauncher } from "../testkit/python-sandboxes.ts";
import { ForcedStarts } from "./forced-starts.ts";

const folders = new FunctionFolders();
after(() => folders.remove());

/** Forced starts with memory that is counted. */
function forcedStarts(memoryMb: number) {
  let left = memoryMb;
  let gone = Promise.withResolvers<void>();
  const launcher = pythonLauncher();
  const starts = new ForcedStarts({
    cold: launcher,
    restoring: {
      launch: (shape, label, bundle) => launcher.launch(shape, label, bundle),
      functions: undefined,
    },
    bundles: folders,
    reserve(wanted) {
      if (wanted > left) return undefined;
      left -= wanted;
      return {
        release() {
          left += wanted;
          gone.resolve();
          gone = Promise.withResolvers();
        },
      };
    },
  });
  return {
    left: () => left,
    /** Resolves when memory has come back. */
    released: () => gone.promise,
    acquire: (spec: VersionSpec, start: ForcedStart) => starts.acquire(spec, "container", start),
  };
}

const ECHO = "def handler(event, context):\n  return event\n";

test("each start gives a sandbox that serves, of that kind, and gives its memory back when it is let go", async () => {
  const spec = folders.version("echo", ECHO);
  const forced = forcedStarts(256);
  for (const start of ["cold", "prepared"] as const) {
    const released = forced.released();
    const lease = await forced.acquire(spec, start).promise;
    assert.equal(lease.start, start);
    assert.equal(forced.left(), 0);
    const { body } = await wholeAnswer(lease.sandbox, { kind: "event", body: Buffer.from("[1]") });
    assert.equal(body.toString(), "[1]");
    // Only what a service has ready before a call is no part of the run.
    assert.equal((lease.asideMs ?? 0) > 0, start === "prepared");
    assert.equal(lease.phases.create_ms === undefined, start === "prepared");
    lease.release(true);
    lease.release(true);
    await released;
    assert.equal(forced.left(), 256);
  }
  assert.equal(folders.held, 0);
});

test("what cannot be had is refused, and holds nothing", async () => {
  const forced = forcedStarts(300);
  const spec = folders.version("echo2", ECHO);
  await assert.rejects(forced.acquire(spec, "restored").promise, { code: "start_unavailable" });
  const large = folders.version("large", ECHO, { memoryMb: 512 });
  await assert.rejects(forced.acquire(large, "cold").promise, { code: "capacity_exhausted" });
  const released = forced.released();
  const broken = folders.version("broken", "def");
  await assert.rejects(forced.acquire(broken, "cold").promise, { code: "function_init_error" });
  await released;
  assert.deepEqual([forced.left(), folders.held], [300, 0]);
});

test("one that nobody wants any more is ended", async () => {
  const forced = forcedStarts(256);
  const released = forced.released();
  const pending = forced.acquire(folders.version("echo3", ECHO), "cold");
  pending.cancel();
  await released;
  assert.deepEqual([forced.left(), folders.held], [256, 0]);
  assert.equal(
    await Promise.race([pending.promise, new Promise((resolve) => setImmediate(resolve, "none"))]),
    "none",
  );
});
