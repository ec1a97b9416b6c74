import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { VersionSpec } from "#contracts/function";
import type { InvocationRecord } from "#contracts/invocation";
import { PLACEMENT_TABLE } from "#contracts/placement-table";
import { Placer } from "../placement/placer.ts";
import type { Lease } from "../pool/function-pool.ts";
import { SandboxPool } from "../pool/sandbox-pool.ts";
import { ReplyLinks } from "../reply/reply-links.ts";
import { GatewaySide } from "../testkit/gateway-side.ts";
import { FunctionFolders, pythonLauncher } from "../testkit/python-sandboxes.ts";
import type { InvocationContext } from "./context.ts";
import { Invocation } from "./invocation.ts";

const folders = new FunctionFolders();
const notes = mkdtempSync(join(tmpdir(), "cloister-behind-"));
const records = new Map<string, InvocationRecord>();
const TRUSTED = { tier: "trusted" } as const;
let gateway: GatewaySide;
let links: ReplyLinks;
let pool: SandboxPool;
let context: InvocationContext;
/** Of a handler that computes as it is, and of an async one, whose runner hears nothing meanwhile. */
let threaded: VersionSpec;
let evented: VersionSpec;
let spec: VersionSpec;
let next = 0;
/** Leases of calls that waited in a sandbox. */
let behind = 0;

/**
 * Notes that it runs, and does what it is told. It says itself how long it has used a processor, 1.5 ms for each call: of a thread that runs the
 * kernel's figure is up to a tick old, and whether a call may wait in the sandbox depends on it.
 */
const SOURCE = `
import os, signal, time
inside = most = calls = 0
def handler(event, context):
    global inside, most, calls
    calls += 1
    with open("${notes}/cpu-%d" % os.getpid(), "w") as file: file.write(str(calls * 1_500_000))
    with open(event["note"], "a") as file: file.write("%d " % event["n"])
    inside += 1
    most = max(most, inside)
    if event["op"] == "sleep": time.sleep(3)
    if event["op"] == "kill": os.kill(os.getpid(), signal.SIGKILL)
    inside -= 1
    return {"n": event["n"], "most": most}
`;

before(async () => {
  gateway = await GatewaySide.listen();
  links = new ReplyLinks({ nodeId: "node_test", secret: gateway.secret });
  pool = new SandboxPool({
    launcher: pythonLauncher((pid) => {
      const path = join(notes, `cpu-${pid}`);
      writeFileSync(path, "0");
      return { cpu: { path, format: "ns" } };
    }),
    bundles: folders,
    memoryMb: 2048,
    idleMs: 60_000,
    prepared: [],
    demandCells: 0,
    processors: { saturated: () => true },
  });
  threaded = folders.version("quick", SOURCE);
  evented = folders.version("evented", SOURCE.replace("def handler", "async def handler"));
  spec = threaded;
  const count = (lease: Lease): void => {
    if (lease.behind) behind++;
  };
  context = {
    nodeId: "node_test",
    pool: {
      acquire(...wanted) {
        const got = pool.acquire(...wanted);
        if ("promise" in got) got.promise.then(count, () => {});
        else count(got);
        return got;
      },
    },
    links,
    versions: {
      cached: (id) => (id === evented.versionId ? evented : threaded),
      load: async () => assert.fail("both are cached"),
    },
    policies: { cached: () => TRUSTED, load: async () => TRUSTED },
    placer: new Placer({ table: PLACEMENT_TABLE, kinds: () => ["container"], starts: pool.starts }),
    records: { record: (record) => records.set(record.id, record), log() {} },
    queueWaitMs: 20_000,
    onProblem: (error) => assert.fail(error),
  };
});
after(async () => {
  await pool.close(5000);
  links.close();
  await gateway.close();
  folders.remove();
  rmSync(notes, { recursive: true });
});

interface Told {
  n: number;
  most: number;
}

async function call(note: string, n: number, op: string) {
  const now = performance.timeOrigin + performance.now();
  const id = `inv_${next++}`;
  const waiting = gateway.call(id);
  await new Invocation(context, {
    id,
    tenantId: spec.tenantId,
    functionId: spec.functionId,
    versionId: spec.versionId,
    kind: "event",
    head: { method: "POST", url: "http://x/", path: "/", headers: [] },
    body: { text: JSON.stringify({ note, n, op }) },
    bodyFollows: false,
    replyTo: gateway.address,
    acceptedAtMs: now,
    expiresAtMs: now + 30_000,
  }).run();
  const { body, error } = await waiting.answer;
  const told = error ? undefined : (JSON.parse(body.toString()) as Told);
  return { told, error, record: records.get(id) as InvocationRecord };
}

/** Calls at once, the first of which does something else; what ran, in its order. */
async function burst(calls: number, first: string) {
  const note = join(notes, String(next++));
  writeFileSync(note, "");
  // So many quick ones that calls may wait in the sandbox.
  for (let n = 0; n < 300; n++) await call(note, n, "now");
  writeFileSync(note, "");
  behind = 0;
  const answers = await Promise.all(
    Array.from({ length: calls }, (_, n) => call(note, n, n === 0 ? first : "now")),
  );
  const ran = readFileSync(note, "utf8").trim().split(" ").map(Number);
  return { answers, ran };
}

const inOrder = (numbers: number[]): number[] => numbers.toSorted((a, b) => a - b);
const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

test("calls of a quick function wait in its sandbox while all processors are busy, and run one by one", async () => {
  let { answers, ran } = await burst(40, "now");
  // Beside much other work its calls take so long at first that they seem to wait for something.
  for (let more = 0; behind === 0 && more < 20; more++) ({ answers, ran } = await burst(40, "now"));
  assert.ok(behind > 0, `${behind} of 40 waited in the sandbox`);
  assert.deepEqual(inOrder(ran), upTo(40));
  for (const [n, { told, record }] of answers.entries()) {
    assert.deepEqual([told?.n, told?.most], [n, 1]);
    assert.equal(record.status, "ok");
    assert.ok((record.phases.handler_ms ?? 0) > 0 && record.durationMs > 0);
  }
  const cpuMs = answers.reduce((sum, { record }) => sum + (record.cpuMs ?? 0), 0);
  assert.ok(cpuMs > 0, "the processor time is told of somebody");
  assert.ok((answers.at(-1)?.record.phases.acquire_ms ?? 0) > 0, "its wait is told as such");
});

test("who waits behind a call that does not end is served elsewhere, and runs once", async () => {
  const { answers, ran } = await burst(10, "sleep");
  assert.ok(behind > 0);
  assert.deepEqual(inOrder(ran), upTo(10));
  const [sleeper, ...others] = answers.map(({ told, record }) => ({ told, record }));
  assert.equal(sleeper?.told?.n, 0);
  for (const { told, record } of others) {
    assert.equal(record.status, "ok", record.errorCode);
    assert.equal(told?.most, 1);
    assert.ok(record.finishedAtMs < (sleeper?.record.finishedAtMs ?? 0), "it did not wait for it");
  }
});

test("a sandbox that is killed takes the call with it that runs there, and none of those that wait", async () => {
  const { answers, ran } = await burst(10, "kill");
  assert.ok(behind > 0);
  assert.equal(answers[0]?.error?.code, "function_exited");
  assert.deepEqual(inOrder(ran), upTo(10));
  for (const { told, error } of answers.slice(1)) assert.equal(told?.most, 1, String(error));
});

test("who waits behind a call that hears nothing waits no longer than for a sandbox, and never runs then", async () => {
  spec = evented;
  context = { ...context, queueWaitMs: 1500 };
  const { answers, ran } = await burst(10, "sleep");
  const [sleeper, ...others] = answers;
  assert.equal(sleeper?.told?.n, 0);
  const late = others.filter(({ error }) => error?.code === "queue_timeout");
  assert.ok(late.length > 0);
  for (const { record } of late)
    assert.ok(record.finishedAtMs < (sleeper?.record.finishedAtMs ?? 0), "it was told in time");
  const answered = answers.flatMap(({ told }) => (told ? [told.n] : []));
  assert.equal(answered.length + late.length, 10);
  // Its runner hears of it before it begins what waits there.
  const again = await call(join(notes, "after"), 10, "now");
  assert.equal(again.told?.n, 10);
  assert.deepEqual(inOrder(ran), inOrder(answered));
  spec = threaded;
});

test("after that nobody waits so for a while", async () => {
  const note = join(notes, String(next++));
  behind = 0;
  await Promise.all(upTo(10).map((n) => call(note, n, "now")));
  assert.equal(behind, 0);
});
