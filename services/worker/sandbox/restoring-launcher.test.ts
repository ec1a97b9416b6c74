import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { functionConfigSchema, type VersionSpec } from "#contracts/function";
import type { SnapshotState } from "#contracts/snapshot";
import { SandboxdStandIn } from "../testkit/sandboxd-stand-in.ts";
import {
  initOf,
  RestoringLauncher,
  SandboxdLauncher,
  type SandboxShape,
  shapeOf,
  wholeAnswer,
} from "./index.ts";

let folder: string;
let sandboxd: SandboxdStandIn;
let inner: SandboxdLauncher;
let launcher: RestoringLauncher;
let problems: string[];
let states: SnapshotState[];
let held: number;
let memory: number;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "cloister-restoring-"));
  sandboxd = new SandboxdStandIn(folder);
  await sandboxd.listen();
  inner = new SandboxdLauncher({ socketPath: sandboxd.path });
  await inner.connect();
  problems = [];
  states = [];
  held = 0;
  memory = 1;
  launcher = new RestoringLauncher(inner, {
    onProblem: (error) => problems.push(error.message),
    functions: {
      warmTurns: 2,
      hold: async (digest) => {
        held++;
        return { digest, path: join(folder, digest), release: () => void held-- };
      },
      reserve: () => (memory-- > 0 ? { release: () => void memory++ } : undefined),
      changed: (_spec, state) => states.push(state),
    },
  });
});
afterEach(async () => {
  inner.close();
  await sandboxd.close();
  rmSync(folder, { recursive: true });
});

function version(source: string, number = 1): { spec: VersionSpec; shape: SandboxShape } {
  const digest = String(number).repeat(64);
  mkdirSync(join(folder, digest));
  writeFileSync(join(folder, digest, "main.py"), source);
  const spec: VersionSpec = {
    versionId: `ver_${number}`,
    functionId: "fn_one",
    tenantId: "ten_one",
    name: "one",
    version: number,
    bundleDigest: digest,
    config: functionConfigSchema.parse({
      name: "one",
      runtime: "python3",
      env: { N: `${number}` },
    }),
  };
  return { spec, shape: shapeOf(spec, "microvm") };
}

const bundleOf = ({ bundleDigest: digest }: VersionSpec) => ({
  digest,
  path: join(folder, digest),
});
const launch = (shape: SandboxShape, spec: VersionSpec) =>
  launcher.launch(shape, "one", bundleOf(spec), spec);

const ECHO = "import os\ndef handler(event, context):\n    return os.environ['N']\n";

test("a sandbox comes back with its function, and answers what was asked before it was back", async () => {
  const { spec, shape } = version(ECHO);
  assert.equal(launcher.restores(shape, spec), false);
  const made = await launcher.functions?.make(shape, spec);
  assert.equal(made?.state, "ready", JSON.stringify(made));
  assert.deepEqual([made?.bytes, held, memory], [1000, 0, 1]);
  assert.deepEqual(
    states.map(({ state }) => state),
    ["making", "ready"],
  );
  assert.equal(launcher.restores(shape, spec), true);
  const assigned = await launch(shape, spec);
  const serving = await assigned.initialise(initOf(spec));
  assert.deepEqual([serving.restored, serving.returning], [true, true]);
  const { body } = await wholeAnswer(serving, { kind: "event", body: Buffer.from("{}") });
  assert.equal(body.toString(), '"1"');
  assert.equal(serving.returning, false);
  const { restore_ms: restoreMs, renew_ms: renewMs, init_ms: initMs } = serving.phases;
  assert.ok(Number(restoreMs) > 0 && Number(renewMs) >= 0 && initMs === undefined);
  await serving.end();
});

test("many who want the same get one; the next call is served by it", async () => {
  const { spec, shape } = version(ECHO);
  const booted = await launch(shape, spec);
  assert.equal(booted.restored, false);
  const made = await Promise.all([1, 2, 3].map(() => launcher.functions?.make(shape, spec)));
  assert.ok(made.every((one) => one?.state === "ready"));
  assert.equal(states.filter(({ state }) => state === "making").length, 1);
  const restored = await launch(shape, spec);
  assert.equal(restored.restored, true);
  await Promise.all([booted.end(), restored.end()]);
});

test("the first two that answered are looked at, and the next one for each that had ended before", async () => {
  const { spec, shape } = version(ECHO);
  await launcher.functions?.make(shape, spec);
  const looked: unknown[] = [];
  sandboxd.answer = ({ op, sandbox }) => {
    if (op !== "learn") return undefined;
    looked.push(sandbox);
    return looked.length > 1
      ? { ok: true, pages: 1, again: looked.length === 2 }
      : { ok: false, code: "unknown_sandbox", message: "It has ended." };
  };
  const ids: string[] = [];
  for (let turn = 0; turn < 4; turn++) {
    const serving = await (await launch(shape, spec)).initialise(initOf(spec));
    await wholeAnswer(serving, { kind: "event", body: Buffer.from("{}") });
    ids.push(serving.id);
    await serving.end();
  }
  assert.deepEqual(looked, ids.slice(0, 3));
});

test("another version, tenant or environment has no part in it", async () => {
  const { spec, shape } = version(ECHO);
  await launcher.functions?.make(shape, spec);
  const others = [
    { ...spec, tenantId: "ten_two" },
    { ...spec, versionId: "ver_other" },
    { ...spec, bundleDigest: "f".repeat(64) },
    { ...spec, config: { ...spec.config, env: { N: "2" } } },
  ];
  for (const other of others) assert.equal(launcher.restores(shape, other), false);
  assert.equal(launcher.restores({ ...shape, memoryMb: 512 }, spec), false);
});

test("a failing hook: no snapshot, not tried again, and the function boots", async () => {
  const { spec, shape } = version(
    `class lifecycle:\n    def before_snapshot():\n        raise ValueError("no")\n${ECHO}`,
  );
  const made = await launcher.functions?.make(shape, spec);
  assert.equal(made?.state, "failed");
  assert.match(made?.reason ?? "", /lifecycle\.before_snapshot: no/);
  assert.deepEqual([held, memory], [0, 1]);
  launcher.functions?.want(shape, spec);
  assert.equal(states.length, 2);
  const assigned = await launch(shape, spec);
  assert.equal(assigned.restored, false);
  await assigned.end();
});

test("without memory for it there is none yet, and whatever waits boots", async () => {
  const { spec, shape } = version(ECHO);
  memory = 0;
  const made = await launcher.functions?.make(shape, spec);
  assert.match(made?.reason ?? "", /no memory/);
  memory = 1;
  assert.equal((await launcher.functions?.make(shape, spec))?.state, "ready");
});

test("one that does not come back is told of, and its snapshot is not used again", async () => {
  const { spec, shape } = version(ECHO);
  await launcher.functions?.make(shape, spec);
  sandboxd.neverBack = true;
  const serving = await (await launch(shape, spec)).initialise(initOf(spec));
  await assert.rejects(wholeAnswer(serving, { kind: "event", body: Buffer.from("{}") }));
  assert.equal(serving.returning, true);
  assert.equal(problems.length, 1, problems.join());
  assert.equal(launcher.restores(shape, spec), false);
  assert.equal(states.at(-1)?.state, "failed");
  sandboxd.neverBack = false;
  const assigned = await launch(shape, spec);
  const again = await assigned.initialise(initOf(spec));
  const { body } = await wholeAnswer(again, { kind: "event", body: Buffer.from("{}") });
  assert.equal(body.toString(), '"1"');
  await again.end();
});

test("one that sandboxd does not know any more is made anew at once", async () => {
  const { spec, shape } = version(ECHO);
  await launcher.functions?.make(shape, spec);
  sandboxd.frozen.clear();
  const booted = await launch(shape, spec);
  assert.equal(booted.restored, false);
  // The launch has asked for it; this waits for the same one.
  assert.equal((await launcher.functions?.make(shape, spec))?.state, "ready");
  const restored = await launch(shape, spec);
  assert.equal(restored.restored, true);
  await Promise.all([booted.end(), restored.end()]);
});

test("a failing after_restore is the function's error, and no fault of the snapshot", async () => {
  const { spec, shape } = version(
    `class lifecycle:\n    def after_restore():\n        raise ValueError("no key")\n${ECHO}`,
  );
  await launcher.functions?.make(shape, spec);
  const serving = await (await launch(shape, spec)).initialise(initOf(spec));
  await assert.rejects(
    wholeAnswer(serving, { kind: "event", body: Buffer.from("{}") }),
    /lifecycle\.after_restore: no key/,
  );
  await serving.ended;
  assert.equal(launcher.restores(shape, spec), true);
  assert.deepEqual(problems, []);
});

test("when sandboxd holds as many as it may, the one unused longest goes", async () => {
  const first = version(ECHO);
  const second = version(ECHO, 2);
  await launcher.functions?.make(first.shape, first.spec);
  let refusals = 1;
  sandboxd.answer = ({ op }) =>
    op === "snapshot" && refusals-- > 0
      ? { ok: false, code: "too_many_snapshots", message: "There are as many as there may be" }
      : undefined;
  const made = await launcher.functions?.make(second.shape, second.spec);
  assert.equal(made?.state, "ready", JSON.stringify(made));
  assert.equal(launcher.restores(first.shape, first.spec), false);
  assert.equal(sandboxd.frozen.size, 1);
});

test("what is deleted, and what a newer version replaces, is forgotten", async () => {
  const first = version(ECHO);
  const second = version(ECHO, 2);
  await launcher.functions?.make(first.shape, first.spec);
  await launcher.functions?.make(second.shape, second.spec);
  launcher.functions?.forget("fn_one", 2);
  assert.equal(launcher.restores(first.shape, first.spec), false);
  assert.equal(launcher.restores(second.shape, second.spec), true);
  launcher.functions?.forget("fn_one");
  assert.equal(launcher.restores(second.shape, second.spec), false);
  launcher.clear();
  assert.deepEqual([...(launcher.functions?.states() ?? [])], []);
});
