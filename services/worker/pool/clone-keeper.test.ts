import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { functionConfigSchema, type VersionSpec } from "#contracts/function";
import { RestoringLauncher, SandboxdLauncher, shapeOf, wholeAnswer } from "../sandbox/index.ts";
import { SandboxdStandIn } from "../testkit/sandboxd-stand-in.ts";
import type { Lease } from "./function-pool.ts";
import { SandboxPool, type SandboxPoolOptions } from "./sandbox-pool.ts";

let folder: string;
let sandboxd: SandboxdStandIn;
let inner: SandboxdLauncher;
let launcher: RestoringLauncher;
let pool: SandboxPool;
let problems: string[];
let busy: boolean;
let held: number;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "cloister-clones-"));
  sandboxd = new SandboxdStandIn(folder);
  // The stand-in cannot put a runner back, so every sandbox of a fresh function serves once.
  sandboxd.answer = ({ op }) =>
    op === "reset" ? { ok: false, code: "reset_refused", message: "It cannot" } : undefined;
  await sandboxd.listen();
  inner = new SandboxdLauncher({ socketPath: sandboxd.path });
  await inner.connect();
  problems = [];
  busy = false;
  held = 0;
  const hold = async (digest: string) => {
    held++;
    return { digest, path: join(folder, digest), release: () => void held-- };
  };
  launcher = new RestoringLauncher(inner, { functions: { warmTurns: 0, hold } });
  bundles = { hold };
});
afterEach(async () => {
  await pool.close(5000);
  inner.close();
  await sandboxd.close();
  rmSync(folder, { recursive: true });
});
let bundles: SandboxPoolOptions["bundles"];

function open(options: Partial<SandboxPoolOptions> = {}): void {
  pool = new SandboxPool({
    launcher,
    bundles,
    memoryMb: 1024,
    idleMs: 60_000,
    prepared: [],
    demandCells: 0,
    clonesPerFunction: 1,
    processors: { saturated: () => busy },
    onProblem: (error) => problems.push(error.message),
    ...options,
  });
}

const KEEPS = `held = []
def handler(event, context):
    held.append(event)
    return held
`;

/** A version of a function of 64 MiB that has its snapshot. */
async function published(
  name: string,
  source = KEEPS,
  { version = 1, ...config }: Record<string, unknown> = {},
): Promise<VersionSpec> {
  const digest = `${name}-${version}`;
  mkdirSync(join(folder, digest));
  writeFileSync(join(folder, digest, "main.py"), source);
  const spec: VersionSpec = {
    versionId: `ver_${name}_${version}`,
    functionId: `fn_${name}`,
    tenantId: `ten_${name}`,
    name,
    version: Number(version),
    bundleDigest: digest,
    config: functionConfigSchema.parse({ name, runtime: "python3", memoryMb: 64, ...config }),
  };
  const made = await launcher.functions?.make(shapeOf(spec, "microvm"), spec);
  assert.equal(made?.state, "ready", JSON.stringify(made));
  return spec;
}

async function acquire(spec: VersionSpec): Promise<Lease> {
  const got = pool.acquire(spec, "microvm", 10_000);
  return "promise" in got ? got.promise : got;
}

/** What the function answers; the lease is given back. */
async function call(lease: Lease, event = "1"): Promise<string> {
  const { body } = await wholeAnswer(lease.sandbox, { kind: "event", body: Buffer.from(event) });
  lease.release(true);
  return body.toString();
}

/** The first call of a function, after which a clone waits for the next. */
async function inDemand(spec: VersionSpec): Promise<void> {
  const before = pool.stats().pooled;
  await call(await acquire(spec), '"first"');
  await until(() => pool.stats().pooled > before);
}

/** Waits for what the pool does by itself; gives up after 30 s. */
async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 30_000;
  while (!condition()) {
    assert.ok(Date.now() < end, `gave up after 30 s: ${JSON.stringify(pool.stats())} ${problems}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("a clone that waits is had at once, and no call of a fresh function sees what another left", async () => {
  open();
  const spec = await published("fresh", KEEPS, { reuse: "fresh" });
  await inDemand(spec);
  const sandboxes = new Set<string>();
  for (const secret of ['"a"', '"b"', '"c"']) {
    await until(() => pool.stats().pooled === 1);
    const lease = pool.acquire(spec, "microvm", 1000);
    assert.ok(!("promise" in lease), "nobody waits for it");
    assert.equal(lease.start, "restored");
    sandboxes.add(lease.sandbox.id);
    assert.equal(await call(lease, secret), `[${secret}]`);
  }
  assert.equal(sandboxes.size, 3);
});

test("where a used sandbox will do, it is preferred, and the clone serves what comes beside it", async () => {
  open();
  const spec = await published("warm");
  await inDemand(spec);
  const first = await acquire(spec);
  const second = pool.acquire(spec, "microvm", 1000);
  assert.ok(!("promise" in second));
  assert.deepEqual([first.start, second.start], ["warm", "restored"]);
  // It was back before: what that took was not this call's wait.
  await second.sandbox.back;
  assert.equal(await call(second, "2"), "[2]");
  assert.equal(await call(first, "2"), '["first", 2]');
  assert.equal((await acquire(spec)).start, "warm");
});

test("none is made for a function that nobody calls, while processors are busy, or when none is to be", async () => {
  open();
  await published("idle");
  const spec = await published("called");
  await pool.close(5000);
  open();
  busy = true;
  await call(await acquire(spec));
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(pool.stats().pooled, 0);
  busy = false;
  await until(() => pool.stats().pooled === 1);
  await pool.close(5000);
  open({ clonesPerFunction: 0 });
  await call(await acquire(spec));
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(pool.stats().pooled, 0);
});

test("a version that is replaced or deleted, and a tenant that is changed, lose theirs at once", async () => {
  open();
  const kept = await published("kept");
  const old = await published("gone");
  const tenant = await published("tenant");
  for (const spec of [kept, old, tenant]) await inDemand(spec);
  const current = await published("gone", KEEPS, { version: 2 });
  pool.supersede(old.functionId, current.versionId);
  assert.equal(pool.stats().pooled, 2);
  pool.dropClones(tenant.tenantId);
  assert.equal(pool.stats().pooled, 1);
  // The current version is not meant.
  pool.supersede(kept.functionId, kept.versionId);
  assert.equal(pool.stats().pooled, 1);
  pool.supersede(kept.functionId);
  assert.equal(pool.stats().pooled, 0);
});

test("they wait in a part of the memory only, and give it back before anything that was used", async () => {
  open({ memoryMb: 4 * 64, clonesPerFunction: 4 });
  const spec = await published("small");
  await inDemand(spec);
  const others = [await published("one"), await published("two"), await published("three")];
  for (const other of others) await call(await acquire(other));
  // Three that were used and the first function's clone would be too many with it.
  assert.equal(pool.stats().memoryReservedMb, 4 * 64);
  assert.deepEqual([pool.stats().pooled, pool.stats().warm], [0, 4]);
});

test("one that is killed while it waits is not handed out, and its successor takes its time", async () => {
  open();
  const spec = await published("killed");
  await inDemand(spec);
  const used = await acquire(spec);
  // The one that was frozen goes, too.
  await until(() => sandboxd.held.size === 2);
  const [waiting] = [...sandboxd.held].filter(([id]) => id !== used.sandbox.id);
  waiting?.[1].child.kill("SIGKILL");
  await until(() => pool.stats().pooled === 0);
  const next = await acquire(spec);
  assert.equal(next.start, "restored");
  assert.notEqual(next.sandbox.id, waiting?.[0]);
  assert.equal(await call(next), "[1]");
  used.release(true);
});

test("one whose hook fails is nobody's, and is not tried again and again", async () => {
  open();
  const marker = join(folder, "fails");
  const spec = await published(
    "hook",
    `import os
class lifecycle:
    def after_restore():
        with open(${JSON.stringify(marker)}, "a") as tries:
            tries.write("x")
        raise ValueError("no key")
${KEEPS}`,
  );
  await assert.rejects(call(await acquire(spec)), /no key/);
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.deepEqual([pool.stats().pooled, pool.stats().starting], [0, 0]);
  // The call's own, and one beside it.
  assert.match(readFileSync(marker, "utf8"), /^xx?$/);
});

test("one that has waited too long gives way to another, and closing ends all", async () => {
  // Longer than a clone takes to come back on a busy machine: one that is not back by then has failed, and none follows at once.
  open({ cloneAgeMs: 2000 });
  const spec = await published("aged");
  await inDemand(spec);
  const used = await acquire(spec);
  const waiting = (): string[] => [...sandboxd.held.keys()].filter((id) => id !== used.sandbox.id);
  const [first] = waiting();
  await until(() => pool.stats().pooled === 1 && !waiting().includes(String(first)));
  used.release(true);
  await pool.close(5000);
  assert.deepEqual([pool.stats().pooled, sandboxd.held.size, held], [0, 0, 0]);
});
