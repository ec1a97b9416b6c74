import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { CloisterError } from "#errors/catalogue";
import { SandboxdStandIn } from "../testkit/sandboxd-stand-in.ts";
import { SandboxdLauncher, type SandboxShape } from "./index.ts";

const SHAPE: SandboxShape = {
  kind: "container",
  image: "python3",
  memoryMb: 128,
  cpuMilli: 1000,
  pids: 64,
  tmpMb: 16,
};

let sandboxd: SandboxdStandIn;
let launcher: SandboxdLauncher;
let ups: number;
let up: PromiseWithResolvers<void>;

beforeEach(async () => {
  sandboxd = new SandboxdStandIn();
  await sandboxd.listen();
  ups = 0;
  launcher = new SandboxdLauncher({
    socketPath: sandboxd.path,
    onUp: () => {
      ups++;
      up?.resolve();
    },
  });
  await launcher.connect();
});
afterEach(async () => {
  launcher.close();
  await sandboxd.close();
});

const code = (expected: string) => (error: unknown) =>
  error instanceof CloisterError && error.code === expected;

test("the connection that asked for a sandbox becomes its runner's", async () => {
  const cell = await launcher.prepare(SHAPE, "cell");
  assert.equal(sandboxd.held.size, 1);
  assert.ok((cell.phases.create_ms ?? -1) >= 0 && (cell.phases.runtime_ms ?? -1) >= 0);
  await cell.end();
  assert.equal((await cell.ended).reason, "signal");
  assert.equal(sandboxd.held.size, 0);
});

test("a runner may be ready before sandboxd's reply", async () => {
  sandboxd.lateReply = true;
  const cell = await launcher.prepare(SHAPE, "cell");
  assert.ok((cell.phases.runtime_ms ?? -1) >= 0);
  await cell.end();
});

test("sandboxd's refusals are errors of the catalogue", async () => {
  const cases: [string, string][] = [
    ["isolation_unavailable", "isolation_unavailable"],
    ["limit_unavailable", "isolation_unavailable"],
    ["too_many_sandboxes", "capacity_exhausted"],
    ["setup_failed", "sandbox_failed"],
    ["unknown_image", "sandbox_failed"],
    ["draining", "draining"],
  ];
  for (const [theirs, ours] of cases) {
    sandboxd.answer = (request) =>
      request.op === "create" ? { ok: false, code: theirs, message: `why ${theirs}` } : undefined;
    await assert.rejects(launcher.prepare(SHAPE, "x"), (error) => {
      assert.ok(code(ours)(error), `${theirs}: ${error}`);
      assert.equal((error as Error).message, `why ${theirs}`);
      return true;
    });
  }
});

test("a reply that is no reply fails the create, not the worker", async () => {
  sandboxd.answer = (request) => (request.op === "create" ? { ok: true } : undefined);
  await assert.rejects(launcher.prepare(SHAPE, "x"));
});

test("a cell that cannot be assigned is ended", async () => {
  const cell = await launcher.prepare(SHAPE, "cell");
  sandboxd.answer = (request) =>
    request.op === "assign"
      ? { ok: false, code: "unknown_bundle", message: "There is no such bundle" }
      : undefined;
  await assert.rejects(
    cell.assign({ digest: "0".repeat(64), path: "/none" }, "x"),
    code("sandbox_failed"),
  );
  await cell.ended;
  assert.equal(sandboxd.held.size, 0);
});

test("sandboxd says why a sandbox ended", async () => {
  sandboxd.exit = (event) => ({ ...event, reason: "oom", memoryPeakBytes: 1000 });
  const cell = await launcher.prepare(SHAPE, "cell");
  sandboxd.held.values().next().value?.child.kill("SIGKILL");
  assert.deepEqual(await cell.ended, {
    reason: "oom",
    memoryPeakBytes: 1000,
    signal: "SIGKILL",
  });
});

test("sandboxd's death ends every sandbox promptly; its return is noticed", async () => {
  const cells = await Promise.all([launcher.prepare(SHAPE, "a"), launcher.prepare(SHAPE, "b")]);
  await sandboxd.die();
  for (const cell of cells) {
    await cell.down;
    assert.ok(["lost", "signal"].includes((await cell.ended).reason));
  }
  assert.equal(launcher.hello, undefined);
  await assert.rejects(launcher.prepare(SHAPE, "c"), code("sandbox_failed"));
  up = Promise.withResolvers<void>();
  await sandboxd.listen();
  await up.promise;
  assert.equal(ups, 2);
  const cell = await launcher.prepare(SHAPE, "d");
  await cell.end();
});
