import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { after, afterEach, test } from "node:test";
import type { VersionSpec } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";
import { type SandboxLauncher, type SandboxShape, wholeAnswer } from "../sandbox/index.ts";
import { FunctionFolders, pythonLauncher } from "../testkit/python-sandboxes.ts";
import type { Lease } from "./function-pool.ts";
import { parsePrepared } from "./prepared-cells.ts";
import { type PendingLease, SandboxPool, type SandboxPoolOptions } from "./sandbox-pool.ts";

const folders = new FunctionFolders();
const pools: SandboxPool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close(5000)));
});
after(() => folders.remove());

const HANDLER = "def handler(event, context):\n  return 1\n";

function open(options: Partial<SandboxPoolOptions> = {}): SandboxPool {
  const pool = new SandboxPool({
    launcher: pythonLauncher(),
    bundles: folders,
    memoryMb: 1024,
    idleMs: 60_000,
    prepared: [],
    demandCells: 0,
    ...options,
  });
  pools.push(pool);
  return pool;
}

const isPending = (got: Lease | PendingLease): got is PendingLease => "promise" in got;

async function acquire(pool: SandboxPool, spec: VersionSpec, waitMs = 10_000): Promise<Lease> {
  const got = pool.acquire(spec, "container", waitMs);
  return isPending(got) ? got.promise : got;
}

const code = (expected: string) => (error: unknown) =>
  error instanceof CloisterError && error.code === expected;

test("the first invocation starts cold, the next ones are warm in the same sandbox", async () => {
  const pool = open();
  const spec = folders.version("warm", HANDLER);
  const first = await acquire(pool, spec);
  assert.equal(first.start, "cold");
  assert.ok((first.phases.init_ms ?? 0) > 0);
  first.release(true);
  const second = pool.acquire(spec, "container", 1000);
  assert.ok(!isPending(second), "a warm sandbox is handed over at once");
  assert.equal(second.start, "warm");
  assert.equal(second.sandbox.id, first.sandbox.id);
  second.release(true);
});

test("how a call would start is told before it does, and asking starts nothing", async () => {
  const pool = open();
  const spec = folders.version("told", HANDLER);
  assert.deepEqual(pool.starts.expected(spec, "container"), { start: "cold", ready: false });
  assert.deepEqual(pool.stats().starting, 0);
  const lease = await acquire(pool, spec);
  assert.deepEqual(pool.starts.expected(spec, "container"), { start: "cold", ready: false });
  lease.release(true);
  assert.deepEqual(pool.starts.expected(spec, "container"), { start: "warm", ready: true });
  assert.deepEqual(pool.starts.expected(spec, "microvm"), { start: "cold", ready: false });
  assert.equal(pool.starts.next(spec, "container"), "cold");
});

test("two functions, two versions and two tenants never share a sandbox", async () => {
  const pool = open();
  const a = folders.version("a", HANDLER);
  const specs = [
    a,
    folders.version("b", HANDLER),
    folders.version("a", HANDLER, {}, 2),
    { ...a, tenantId: "ten_other" },
  ];
  const ids = new Set<string>();
  for (const spec of specs) {
    const lease = await acquire(pool, spec);
    ids.add(lease.sandbox.id);
    lease.release(true);
  }
  assert.equal(ids.size, specs.length);
});

test("a waiter gets the sandbox that is freed first, and no start it does not need begins", async () => {
  const pool = open({ memoryMb: 256 });
  const spec = folders.version("freed", HANDLER);
  const first = await acquire(pool, spec);
  const waiting = pool.acquire(spec, "container", 5000);
  assert.ok(isPending(waiting));
  first.release(true);
  const second = await waiting.promise;
  assert.equal(second.sandbox.id, first.sandbox.id);
  assert.equal(second.start, "warm");
  assert.equal(pool.stats().starting, 0);
  second.release(true);
});

test("a burst makes one sandbox each, within the memory budget", async () => {
  const pool = open({ memoryMb: 3 * 256 });
  const spec = folders.version("burst", HANDLER);
  const got = Array.from({ length: 5 }, () => acquire(pool, spec));
  const leases = await Promise.all(got.slice(0, 3));
  assert.equal(new Set(leases.map((lease) => lease.sandbox.id)).size, 3);
  assert.deepEqual([pool.stats().memoryReservedMb, pool.stats().waiting], [3 * 256, 2]);
  for (const lease of leases.slice(0, 2)) lease.release(true);
  const late = await Promise.all(got.slice(3));
  for (const lease of [...late, ...leases.slice(2)]) lease.release(true);
});

test("a burst after a pause is left to the warm sandbox when its calls are short", async () => {
  const pool = open();
  const spec = folders.version("short", HANDLER);
  const first = await acquire(pool, spec);
  first.release(true);
  (await acquire(pool, spec)).release(true);
  // The pause: another function starts meanwhile.
  (await acquire(pool, folders.version("other", HANDLER))).release(true);
  const got = Array.from({ length: 20 }, () => pool.acquire(spec, "container", 10_000));
  assert.deepEqual([pool.stats().waiting, pool.stats().starting], [19, 0]);
  for (const one of got) {
    const lease = isPending(one) ? await one.promise : one;
    assert.equal(lease.sandbox.id, first.sandbox.id);
    lease.release(true);
  }
});

test("calls that compute wait for one another while processors are busy, and for a sandbox that is free only as long as calls end", async () => {
  let busy = false;
  const pool = open({ memoryMb: 8192, processors: { saturated: () => busy } });
  const spec = folders.version(
    "computes",
    `import time
def handler(event, context):
  end = time.process_time() + 0.003
  while time.process_time() < end: pass
  return 1
`,
  );
  const processors = availableParallelism();
  const call = async (lease: Lease): Promise<void> => {
    // Of the call before, which the kernel has counted once its thread sleeps.
    lease.sandbox.cpuDeltaMs();
    await wholeAnswer(lease.sandbox, { kind: "event" });
    lease.release(true);
    await new Promise((resolve) => setTimeout(resolve, 5));
  };
  const leases = Array.from({ length: processors + 1 }, () => acquire(pool, spec));
  await Promise.all(leases.map(async (lease) => call(await lease)));
  // On a busy machine, too, one of them is not interrupted: so long a call takes when nothing holds it up.
  for (let n = 0; n < 50; n++) await call(await acquire(pool, spec));

  busy = true;
  const held = Array.from({ length: processors }, () => pool.acquire(spec, "container", 10_000));
  const running = held.map((got) => {
    assert.ok(!isPending(got));
    return got;
  });
  // A call has just ended, and the place of the next is taken at once.
  running.pop()?.release(true);
  const next = pool.acquire(spec, "container", 10_000);
  assert.ok(!isPending(next));
  const late = pool.acquire(spec, "container", 10_000);
  assert.ok(isPending(late), "though a sandbox is free");
  assert.equal(pool.stats().waiting, 1);
  const lease = await late.promise;
  for (const { sandbox } of [...running, next]) assert.notEqual(sandbox.id, lease.sandbox.id);
  assert.equal(pool.stats().starting, 0);
  for (const one of [...running, next, lease]) one.release(true);
});

test("concurrency puts that many invocations in one sandbox", async () => {
  const pool = open();
  const spec = folders.version("wide", HANDLER, { concurrency: 3 });
  const leases = await Promise.all(Array.from({ length: 4 }, () => acquire(pool, spec)));
  const ids = leases.map((lease) => lease.sandbox.id);
  assert.equal(new Set(ids).size, 2);
  for (const lease of leases) lease.release(true);
});

test("a full node ends the sandbox idle longest, and memory is reserved until it is gone", async () => {
  const pool = open({ memoryMb: 2 * 256 });
  const first = await acquire(pool, folders.version("old", HANDLER));
  first.release(true);
  const second = await acquire(pool, folders.version("young", HANDLER));
  second.release(true);
  const third = await acquire(pool, folders.version("new", HANDLER));
  assert.equal(first.sandbox.alive, false);
  assert.equal(second.sandbox.alive, true);
  assert.equal(pool.stats().memoryReservedMb, 2 * 256);
  third.release(true);
});

test("no room in time is capacity_exhausted; more than the node has is so at once", async () => {
  const pool = open({ memoryMb: 256 });
  const lease = await acquire(pool, folders.version("holder", HANDLER));
  await assert.rejects(
    acquire(pool, folders.version("other", HANDLER), 50),
    code("capacity_exhausted"),
  );
  assert.throws(
    () => pool.acquire(folders.version("huge", HANDLER, { memoryMb: 512 }), "container", 1000),
    code("capacity_exhausted"),
  );
  assert.equal(pool.stats().waiting, 0);
  lease.release(true);
});

test("a cancelled wait takes its start with it", async () => {
  const pool = open({ memoryMb: 256 });
  const lease = await acquire(pool, folders.version("busy", HANDLER));
  const waiting = pool.acquire(folders.version("never", HANDLER), "container", 5000);
  assert.ok(isPending(waiting));
  waiting.cancel();
  assert.equal(pool.stats().waiting, 0);
  lease.release(false);
  await lease.sandbox.ended;
  assert.equal(pool.stats().starting, 0);
});

test("idle sandboxes end after their time and give everything back", async () => {
  const pool = open({ idleMs: 20 });
  const held = folders.held;
  const lease = await acquire(pool, folders.version("idle", HANDLER));
  lease.release(true);
  await lease.sandbox.ended;
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(pool.stats(), {
    warm: 0,
    busy: 0,
    prepared: 0,
    pooled: 0,
    starting: 0,
    waiting: 0,
    memoryReservedMb: 0,
  });
  assert.equal(folders.held, held);
});

test("reuse: fresh gives each invocation a sandbox of its own", async () => {
  const pool = open();
  const spec = folders.version("fresh", HANDLER, { reuse: "fresh" });
  const first = await acquire(pool, spec);
  first.release(true);
  const second = await acquire(pool, spec);
  assert.notEqual(second.sandbox.id, first.sandbox.id);
  await first.sandbox.ended;
  second.release(true);
});

test("prepared cells are made ahead, taken at once and replaced", async () => {
  const pool = open({ prepared: parsePrepared("python3=1", 256) });
  pool.start();
  await until(() => pool.stats().prepared === 1);
  const lease = await acquire(pool, folders.version("prepared", HANDLER));
  assert.equal(lease.start, "prepared");
  assert.equal(lease.phases.create_ms, undefined);
  assert.ok((lease.phases.assign_ms ?? -1) >= 0);
  await until(() => pool.stats().prepared >= 1);
  lease.release(true);
});

test("a function that a prepared cell serves is wanted as a snapshot too, like one that was launched", async () => {
  const wanted: string[] = [];
  const launcher: SandboxLauncher = Object.assign(pythonLauncher(), {
    wantSnapshot: (_: SandboxShape, { name }: VersionSpec) => void wanted.push(name),
  });
  const pool = open({ launcher, prepared: parsePrepared("python3=1", 256) });
  pool.start();
  await until(() => pool.stats().prepared === 1);
  const lease = await acquire(pool, folders.version("missed", HANDLER));
  assert.equal(lease.start, "prepared");
  await until(() => wanted.length > 0);
  assert.deepEqual(wanted, ["missed"]);
  lease.release(true);
});

test("prepared cells make room for functions", async () => {
  const pool = open({ memoryMb: 256, prepared: parsePrepared("python3=1", 256) });
  pool.start();
  await until(() => pool.stats().prepared === 1);
  const lease = await acquire(pool, folders.version("larger", HANDLER, { memoryMb: 128 }));
  assert.equal(lease.start, "cold");
  assert.equal(pool.stats().prepared, 0);
  lease.release(true);
});

test("a sandbox that dies while idle is never handed out and its memory comes back", async () => {
  const pool = open();
  const spec = folders.version("dies", HANDLER);
  const first = await acquire(pool, spec);
  first.release(true);
  await first.sandbox.end();
  const second = await acquire(pool, spec);
  assert.notEqual(second.sandbox.id, first.sandbox.id);
  assert.equal(pool.stats().memoryReservedMb, 256);
  second.release(true);
});

test("a function that cannot be loaded fails its own waiters and leaves nothing", async () => {
  const pool = open();
  const spec = folders.version("bad", "raise ValueError('at load')\n");
  await assert.rejects(acquire(pool, spec), code("function_init_error"));
  await until(() => pool.stats().memoryReservedMb === 0);
  assert.equal(pool.stats().starting, 0);
});

test("a launcher that cannot make sandboxes fails those who wait, and prepared cells are tried again later", async () => {
  const problems: Error[] = [];
  const refuse = async (): Promise<never> => {
    throw new CloisterError("sandbox_failed", "no sandboxd");
  };
  const pool = open({
    launcher: { prepare: refuse, launch: refuse },
    prepared: parsePrepared("python3=1", 256),
    onProblem: (error) => problems.push(error),
  });
  pool.start();
  await until(() => problems.length > 0);
  await assert.rejects(acquire(pool, folders.version("any", HANDLER)), code("sandbox_failed"));
  assert.equal(pool.stats().memoryReservedMb, 0);
});

test("close refuses waiters and ends everything", async () => {
  const pool = open({ memoryMb: 256 });
  const lease = await acquire(pool, folders.version("running", HANDLER));
  const waiting = acquire(pool, folders.version("waits", HANDLER));
  const closing = pool.close(5000);
  await assert.rejects(waiting, code("draining"));
  lease.release(true);
  await closing;
  assert.equal(lease.sandbox.alive, false);
  assert.throws(
    () => pool.acquire(folders.version("late", HANDLER), "container", 1000),
    code("draining"),
  );
});

test("CLOISTER_PREPARED is read, and a mistake in it is named", () => {
  assert.deepEqual(parsePrepared("node24=2, python3/512=1", 256), [
    { image: "node24", memoryMb: 256, count: 2 },
    { image: "python3", memoryMb: 512, count: 1 },
  ]);
  assert.deepEqual(parsePrepared("", 256), []);
  assert.throws(() => parsePrepared("node24", 256), /"node24" is not image=count/);
});

/** Waits for what a background task of the pool brings about; gives up after 10 s. */
async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!condition()) {
    assert.ok(Date.now() < end, "gave up after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
