import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { VersionSpec } from "#contracts/function";
import type { InvocationJob, InvocationRecord, LogEntry, ReplyMeta } from "#contracts/invocation";
import { PLACEMENT_TABLE } from "#contracts/placement-table";
import { CloisterError } from "#errors/catalogue";
import { Placer } from "../placement/placer.ts";
import { SandboxPool } from "../pool/sandbox-pool.ts";
import { ReplyLinks } from "../reply/reply-links.ts";
import { type Answer, GatewaySide } from "../testkit/gateway-side.ts";
import { FunctionFolders, pythonLauncher } from "../testkit/python-sandboxes.ts";
import type { InvocationContext } from "./context.ts";
import { Invocation } from "./invocation.ts";

const folders = new FunctionFolders();
const records: InvocationRecord[] = [];
const logs: LogEntry[] = [];
const versions = new Map<string, VersionSpec>();
let gateway: GatewaySide;
let links: ReplyLinks;
let pool: SandboxPool;
const TRUSTED = { tier: "trusted" } as const;
let context: InvocationContext;

before(async () => {
  gateway = await GatewaySide.listen();
  links = new ReplyLinks({ nodeId: "node_test", secret: gateway.secret });
  pool = new SandboxPool({
    launcher: pythonLauncher(),
    bundles: folders,
    memoryMb: 2048,
    idleMs: 60_000,
    prepared: [],
    demandCells: 0,
  });
  context = {
    nodeId: "node_test",
    pool,
    links,
    versions: {
      cached: () => undefined,
      load: async (id) => {
        const spec = versions.get(id);
        if (!spec) throw new CloisterError("version_not_found");
        return spec;
      },
    },
    policies: { cached: () => TRUSTED, load: async () => TRUSTED },
    placer: new Placer({
      table: PLACEMENT_TABLE,
      kinds: () => ["container"],
      starts: pool.starts,
    }),
    records: { record: (record) => records.push(record), log: (entry) => logs.push(entry) },
    queueWaitMs: 5000,
    onProblem: (error) => assert.fail(error),
  };
});
after(async () => {
  await pool.close(5000);
  links.close();
  await gateway.close();
  folders.remove();
});

let next = 0;
function deploy(source: string, config: Record<string, unknown> = {}): VersionSpec {
  const spec = folders.version(`f${next++}`, source, config);
  versions.set(spec.versionId, spec);
  return spec;
}

function jobFor(spec: VersionSpec, part: Partial<InvocationJob> = {}): InvocationJob {
  const now = performance.timeOrigin + performance.now();
  return {
    id: `inv_${next++}`,
    tenantId: spec.tenantId,
    functionId: spec.functionId,
    versionId: spec.versionId,
    kind: "event",
    head: { method: "POST", url: "http://x/", path: "/", headers: [] },
    body: { text: "{}" },
    bodyFollows: false,
    replyTo: gateway.address,
    acceptedAtMs: now,
    expiresAtMs: now + 10_000,
    ...part,
  };
}

const recordOf = (job: InvocationJob): InvocationRecord => {
  const found = records.filter((record) => record.id === job.id);
  assert.equal(found.length, 1, "exactly one record");
  return found[0] as InvocationRecord;
};

async function invoke(spec: VersionSpec, part: Partial<InvocationJob> = {}) {
  const job = jobFor(spec, part);
  const call = gateway.call(job.id);
  await new Invocation(context, job).run();
  return { job, answer: await call.answer, record: recordOf(job) };
}

const metaOf = (answer: Answer): Partial<ReplyMeta> => (answer.head?.meta ?? {}) as ReplyMeta;

const ECHO = "def handler(event, context):\n  print('hello log')\n  return event\n";

test("an answer comes with its meta, its phases, its log and one record", async () => {
  const spec = deploy(ECHO);
  const cold = await invoke(spec, { body: { text: '{"a":1}' } });
  assert.deepEqual(JSON.parse(cold.answer.body.toString()), { a: 1 });
  const meta = metaOf(cold.answer);
  assert.deepEqual([meta.path, meta.start, meta.version], ["container", "cold", 1]);
  const phases = cold.record.phases as Record<string, number>;
  for (const name of [
    "queue_ms",
    "place_ms",
    "acquire_ms",
    "create_ms",
    "init_ms",
    "handler_ms",
    "reply_ms",
  ])
    assert.equal(typeof phases[name], "number", name);
  assert.equal(cold.record.status, "ok");
  assert.equal(cold.record.httpStatus, 200);
  assert.deepEqual(
    [cold.record.requestBytes, cold.record.responseBytes],
    [7, cold.answer.body.length],
  );
  assert.ok(cold.record.placementReasons.length > 0);
  assert.ok(logs.some((entry) => entry.invocationId === cold.job.id && entry.text === "hello log"));
  const warm = await invoke(spec);
  assert.equal(metaOf(warm.answer).start, "warm");
  assert.equal(warm.record.phases.init_ms, undefined);
  assert.equal(gateway.links, 1, "one connection serves all");
});

test("a body larger than every window follows over the reply link", async () => {
  const spec = deploy("def handler(event, context):\n  return len(event['text'])\n");
  const body = Buffer.from(JSON.stringify({ text: "x".repeat(3_000_000) }));
  const job = jobFor(spec, { bodyFollows: true });
  delete job.body;
  const call = gateway.call(job.id, { body });
  await new Invocation(context, job).run();
  const answer = await call.answer;
  assert.equal(answer.body.toString(), "3000000", JSON.stringify(answer.error));
  assert.equal(recordOf(job).requestBytes, body.length);
});

test("a caller that reads slowly holds back its function and nobody else", async () => {
  const spec = deploy("def handler(event, context):\n  return 'x' * 5000000\n");
  const job = jobFor(spec);
  const call = gateway.call(job.id, { reads: false });
  const running = new Invocation(context, job).run();
  await call.stalled;
  const other = await invoke(deploy(ECHO));
  assert.equal(other.record.status, "ok");
  assert.equal(call.arrived(), 262_144, "nothing arrives without credit");
  call.readOn();
  await running;
  assert.equal((await call.answer).body.length, 5_000_002);
});

test("a throwing function is its error, and its sandbox serves on", async () => {
  const spec = deploy(
    "def handler(event, context):\n  if event.get('bad'): raise ValueError('on purpose')\n  return 1\n",
  );
  const bad = await invoke(spec, { body: { text: '{"bad":true}' } });
  assert.equal(bad.answer.error?.code, "function_error");
  assert.match(String(bad.answer.error?.message), /on purpose/);
  assert.deepEqual([bad.record.status, bad.record.errorCode], ["function_error", "function_error"]);
  const good = await invoke(spec);
  assert.equal(metaOf(good.answer).start, "warm");
});

test("a busy loop ends at its timeout, with its sandbox", async () => {
  const spec = deploy(
    "def handler(event, context):\n  while event.get('loop'): pass\n  return 1\n",
    { timeoutMs: 300 },
  );
  const stuck = await invoke(spec, { body: { text: '{"loop":true}' } });
  assert.equal(stuck.answer.error?.code, "function_timeout");
  assert.equal(stuck.record.status, "function_timeout");
  const again = await invoke(spec);
  assert.equal(metaOf(again.answer).start, "cold");
});

test("a process that exits is function_exited, promptly and with the code", async () => {
  const spec = deploy("import os\ndef handler(event, context):\n  os._exit(7)\n");
  const { answer, record } = await invoke(spec);
  assert.equal(answer.error?.code, "function_exited");
  assert.match(String(answer.error?.message), /code 7/);
  assert.equal(record.status, "function_exited");
});

test("a function that cannot be loaded is function_init_error for its caller", async () => {
  const { answer, record } = await invoke(deploy("raise KeyError('at load')\n"));
  assert.equal(answer.error?.code, "function_init_error");
  assert.match(String(answer.error?.message), /at load/);
  assert.equal(record.status, "function_error");
});

test("an unknown version, an unplaceable function and another tenant's version are refused", async () => {
  const spec = deploy(ECHO);
  const unknown = await invoke(spec, { versionId: "ver_none" });
  assert.equal(unknown.answer.error?.code, "version_not_found");
  const foreign = await invoke(spec, { tenantId: "ten_other" });
  assert.equal(foreign.answer.error?.code, "internal");
  const { policies } = context;
  const policy = { tier: "untrusted" as const };
  context.policies = { cached: () => policy, load: async () => policy };
  const unplaceable = await invoke(spec);
  context.policies = policies;
  assert.deepEqual(unplaceable.record.placementRules, ["tenant-untrusted", "node-lacks"]);
  assert.equal(unplaceable.record.placementReasons.length, 2);
  assert.equal(unplaceable.answer.error?.code, "isolation_unavailable");
  assert.equal(unplaceable.record.status, "platform_error");
});

test("an answer head that HTTP does not allow is function_bad_response", async () => {
  const spec = deploy(
    "def handler(event, context):\n  return {'statusCode': 200, 'headers': {'x-a': 'b\\r\\nx-c: d'}, 'body': ''}\n",
  );
  const { answer } = await invoke(spec, { kind: "http" });
  assert.equal(answer.error?.code, "function_bad_response");
});

test("a caller that hangs up is recorded as cancelled and frees its slot at once", async () => {
  const spec = deploy("import time\ndef handler(event, context):\n  time.sleep(30)\n", {
    timeoutMs: 60_000,
  });
  const job = jobFor(spec);
  const call = gateway.call(job.id);
  const running = new Invocation(context, job).run();
  await call.attached;
  call.hangUp();
  await running;
  assert.equal(recordOf(job).status, "cancelled");
});

test("nobody waiting any more: the function does not run", async () => {
  const spec = deploy(ECHO);
  const before = logs.length;
  const job = jobFor(spec);
  await new Invocation(context, job).run();
  assert.equal(recordOf(job).status, "cancelled");
  const expired = jobFor(spec, { expiresAtMs: Date.now() - 1 });
  await new Invocation(context, expired).run();
  assert.equal(logs.length, before);
});

test("a gateway that goes away ends its invocations; the next job connects again", async () => {
  const spec = deploy(
    "import time\ndef handler(event, context):\n  time.sleep(event.get('s', 0))\n  return 1\n",
    { timeoutMs: 60_000 },
  );
  const job = jobFor(spec, { body: { text: '{"s":30}' } });
  const call = gateway.call(job.id);
  const running = new Invocation(context, job).run();
  await call.attached;
  gateway.dropLinks();
  await running;
  assert.equal(recordOf(job).errorCode, "worker_lost");
  const next = await invoke(spec);
  assert.equal(next.record.status, "ok");
});

test("a gateway that cannot be reached ends the job, which is reported", async () => {
  const problems: string[] = [];
  const spec = deploy(ECHO);
  const job = jobFor(spec, { replyTo: "unix:/nowhere/gateway.sock" });
  await new Invocation(
    { ...context, onProblem: (error) => problems.push(error.message) },
    job,
  ).run();
  assert.equal(problems.length, 1);
  const wrong = new ReplyLinks({ nodeId: "n", secret: "not the same secret" });
  await assert.rejects(Promise.resolve(wrong.get(gateway.address)));
});
