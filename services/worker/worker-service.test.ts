import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { pino } from "pino";
import { create } from "tar";
import { type FunctionConfig, functionConfigSchema, type VersionSpec } from "#contracts/function";
import {
  CHANGES_CHANNEL,
  type Change,
  type InvocationJob,
  type InvocationRecord,
  type LogEntry,
} from "#contracts/invocation";
import type { LiveSandbox, NodeSandboxes } from "#contracts/live-sandbox";
import type { SnapshotState } from "#contracts/snapshot";
import type { SerializedRecord } from "#contracts/usage";
import { CloisterError } from "#errors/catalogue";
import { InvocationProducer } from "#queue/invocation-producer";
import { readNodes } from "#queue/nodes";
import { Subscriber } from "#queue/pubsub";
import { askSandboxes } from "#queue/sandbox-inquiry";
import { readSnapshotStates } from "#queue/snapshots";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { type Answer, GatewaySide } from "./testkit/gateway-side.ts";
import { SandboxdStandIn } from "./testkit/sandboxd-stand-in.ts";
import { type WorkerDatabase, WorkerService } from "./worker-service.ts";

let folder: string;
let redis: RedisServer;
let gateway: GatewaySide;
let sandboxd: SandboxdStandIn;
let producer: InvocationProducer;
let worker: WorkerService;
let database: Rows;

/** What the worker reads and writes, in memory. */
class Rows implements WorkerDatabase {
  readonly records: InvocationRecord[] = [];
  readonly logs: LogEntry[] = [];
  readonly versions = new Map<string, VersionSpec>();
  readonly bundles = new Map<string, Uint8Array>();
  async readVersion(id: string) {
    return this.versions.get(id);
  }
  async readBundle(digest: string) {
    return this.bundles.get(digest);
  }
  async recentlyPublished() {
    return [...this.versions.values()].map(({ functionId, versionId }) => ({
      functionId,
      versionId,
    }));
  }
  /** Of tenants that are not active; `gone` are not there at all. */
  readonly states = new Map<string, "suspended" | "gone">();
  async policyOf(tenantId: string) {
    if (this.states.has(tenantId)) throw new CloisterError("tenant_suspended");
    return { tier: "trusted" as const };
  }
  async tenantStates(ids: string[]) {
    const found = new Map<string, "active" | "suspended">();
    for (const id of ids) {
      const state = this.states.get(id) ?? "active";
      if (state !== "gone") found.set(id, state);
    }
    return found;
  }
  async keepHouse() {
    return true;
  }
  async writeRecords(rows: SerializedRecord[]) {
    this.records.push(...rows.map(({ json }) => JSON.parse(json) as InvocationRecord));
    return [];
  }
  async readMonthTotals() {
    return new Map<string, number>();
  }
  async insertLogs(rows: LogEntry[]) {
    this.logs.push(...rows);
  }
  async close() {}
}

beforeEach(async () => {
  process.umask(0o022);
  folder = await mkdtemp(join(tmpdir(), "cloister-worker-"));
  redis = await startRedisServer();
  gateway = await GatewaySide.listen();
  sandboxd = new SandboxdStandIn(join(folder, "bundles"));
  sandboxd.kinds = ["container", "microvm"];
  await sandboxd.listen();
  producer = new InvocationProducer(redis.url, (error) => assert.fail(error));
  database = new Rows();
  worker = new WorkerService(
    {
      nodeId: "node_test",
      redisUrl: redis.url,
      linkSecret: gateway.secret,
      sandboxdSocket: sandboxd.path,
      bundlesDir: join(folder, "bundles"),
      memoryMb: 1024,
      concurrency: 10,
      idleMs: 60_000,
      prepared: [{ image: "python3", memoryMb: 256, count: 1 }],
      queueWaitMs: 10_000,
      retentionDays: 40,
      metrics: join(folder, "worker.sock"),
    },
    database,
    pino({ level: "silent" }),
  );
  await worker.start();
});

afterEach(async () => {
  await worker.drain();
  await producer.close();
  await gateway.close();
  await sandboxd.close();
  await redis.stop();
  await rm(folder, { recursive: true, force: true });
});

let next = 0;
async function deploy(source: string, more: Partial<FunctionConfig> = {}): Promise<VersionSpec> {
  const name = `f${next++}`;
  await writeFile(join(folder, "main.py"), source);
  const file = join(folder, `${name}.tgz`);
  await create({ gzip: true, file, cwd: folder, portable: true }, ["main.py"]);
  const bundle = await readFile(file);
  const bundleDigest = createHash("sha256").update(bundle).digest("hex");
  const spec: VersionSpec = {
    versionId: `ver_${name}`,
    functionId: `fn_${name}`,
    tenantId: "ten_test",
    name,
    version: 1,
    bundleDigest,
    config: functionConfigSchema.parse({ name, runtime: "python3", timeoutMs: 20_000, ...more }),
  };
  database.bundles.set(bundleDigest, bundle);
  database.versions.set(spec.versionId, spec);
  return spec;
}

function send(
  spec: VersionSpec,
  event: object = {},
): { id: string; answer: Promise<Answer>; attached: Promise<void>; hangUp: () => void } {
  const id = `inv_w${next++}`;
  const now = Date.now();
  const job: InvocationJob = {
    id,
    tenantId: spec.tenantId,
    functionId: spec.functionId,
    versionId: spec.versionId,
    kind: "event",
    head: { method: "POST", url: "http://x/", path: "/", headers: [] },
    body: { text: JSON.stringify(event) },
    bodyFollows: false,
    replyTo: gateway.address,
    acceptedAtMs: now,
    expiresAtMs: now + 20_000,
  };
  const call = gateway.call(id);
  producer.add(job, "node_test", (error) => assert.fail(error));
  return { id, answer: call.answer, attached: call.attached, hangUp: call.hangUp };
}

const HELLO = "def handler(event, context):\n  return 'hello'\n";

test("a job is answered from the queue to the record, and the node tells of itself", async () => {
  const spec = await deploy(HELLO);
  const answer = await send(spec).answer;
  assert.equal(answer.body.toString(), '"hello"', JSON.stringify(answer.error));
  assert.equal((await send(spec).answer).body.toString(), '"hello"');
  const [node] = await readNodes(producer.redis);
  assert.deepEqual(
    [node?.id, node?.sandboxd, node?.kinds],
    ["node_test", true, ["container", "microvm"]],
  );
  await worker.drain();
  assert.deepEqual(
    database.records.map((record) => record.status),
    ["ok", "ok"],
  );
  assert.deepEqual(await readNodes(producer.redis), []);
  assert.equal(sandboxd.held.size, 0, "a drain leaves no sandbox");
});

const tell = (change: Change) => producer.redis.publish(CHANGES_CHANNEL, JSON.stringify(change));

/** What this node tells of a version, once it is `wanted`. */
async function told(spec: VersionSpec, wanted: SnapshotState["state"]): Promise<SnapshotState> {
  let state: SnapshotState | undefined;
  // Nothing tells of a change; the bound is that of all waits here.
  for (let tries = 0; tries < 200; tries++) {
    state = (await readSnapshotStates(producer.redis, spec.versionId)).get("node_test");
    if (state?.state === wanted) return state;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`told ${JSON.stringify(state)}`);
}

test("what is published has a snapshot made, calls start from it, and what is deleted is forgotten", async () => {
  const spec = await deploy(HELLO, { isolation: "microvm", reuse: "fresh" });
  await tell({ kind: "function", id: spec.functionId, versionId: spec.versionId });
  assert.equal((await told(spec, "ready")).bytes, 1000);
  const answer = await send(spec).answer;
  const { start } = (answer.head?.meta ?? {}) as { start?: string };
  assert.deepEqual([answer.body.toString(), start], ['"hello"', "restored"]);
  await tell({ kind: "function", id: spec.functionId, deleted: true });
  await told(spec, "none");
  await worker.drain();
  const [record] = database.records;
  assert.equal(record?.start, "restored");
  assert.ok(Number(record?.phases.restore_ms) > 0, JSON.stringify(record));
});

test("a call whose sandbox never comes back is served by another, and its caller sees nothing of that", async () => {
  const spec = await deploy(HELLO, { isolation: "microvm", reuse: "fresh" });
  await tell({ kind: "function", id: spec.functionId, versionId: spec.versionId });
  await told(spec, "ready");
  sandboxd.neverBack = true;
  const answer = await send(spec).answer;
  assert.equal(answer.body.toString(), '"hello"', JSON.stringify(answer.error));
  assert.equal(answer.error, undefined);
  await told(spec, "failed");
  await worker.drain();
  assert.deepEqual(
    database.records.map((record) => record.status),
    ["ok"],
  );
  const lines = database.logs.filter(({ stream }) => stream === "system");
  assert.match(lines[0]?.text ?? "", /version 1 has no snapshot/);
});

test("sandboxd's death fails what runs at once; what comes later waits for its return", async () => {
  const slow = await deploy("import time\ndef handler(event, context):\n  time.sleep(60)\n");
  const running = send(slow);
  await running.attached;
  await sandboxd.busy();
  await sandboxd.die();
  const answer = await running.answer;
  assert.equal(answer.error?.code, "sandbox_failed", JSON.stringify(answer.error));
  const later = send(await deploy(HELLO));
  await sandboxd.listen();
  assert.equal((await later.answer).body.toString(), '"hello"');
});

test("a drain lets running invocations finish", async () => {
  const spec = await deploy(
    "import time\ndef handler(event, context):\n  time.sleep(0.3)\n  return 'done'\n",
  );
  const running = send(spec);
  await running.attached;
  await worker.drain();
  assert.equal((await running.answer).body.toString(), '"done"');
});

/** What the node tells of its sandboxes that are somebody's, once `until` holds of them. */
async function sandboxes(until: (told: NodeSandboxes) => boolean = () => true) {
  const subscriber = new Subscriber(redis.url);
  try {
    // Nothing tells of a sandbox's end.
    for (let tries = 0; tries < 200; tries++) {
      const filter = { tenantId: "ten_test" };
      const { nodes } = await askSandboxes({ redis: producer.redis, subscriber }, filter);
      if (nodes[0] && until(nodes[0])) return nodes[0];
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("the node did not come to that");
  } finally {
    await subscriber.close();
  }
}

const SLOW =
  "import time\ndef handler(event, context):\n  time.sleep(event.get('s', 0))\n  return 'slow'\n";

test("a node that is asked tells of its sandboxes, and of what runs", async () => {
  const spec = await deploy(SLOW);
  await send(spec).answer;
  const { nodeId, total, running, sandboxes: idle } = await sandboxes();
  assert.deepEqual([nodeId, total, running], ["node_test", 1, 0]);
  const { ageMs, id, memoryPeakBytes: _, ...rest } = idle[0] as LiveSandbox;
  assert.ok(Number(ageMs) >= 0 && id !== "");
  assert.deepEqual(rest, {
    ...{ path: "container", runtime: "python3", state: "idle", start: rest.start },
    ...{ tenantId: "ten_test", functionId: spec.functionId, function: spec.name, version: 1 },
    ...{ memoryMb: 256, invocations: 1, active: 0 },
  });
  const call = send(spec, { s: 60 });
  await call.attached;
  const busy = await sandboxes(({ sandboxes: [one] }) => one?.active === 1);
  assert.deepEqual(
    [busy.running, busy.sandboxes[0]?.state, busy.sandboxes[0]?.invocations],
    [1, "busy", 2],
  );
  call.hangUp();
});

test("a suspended tenant's work is finished, none begins, and its idle sandboxes go", async () => {
  const spec = await deploy(
    "import time\ndef handler(event, context):\n  time.sleep(0.3)\n  return 'done'\n",
  );
  await send(spec).answer;
  const running = send(spec);
  await sandboxes(({ sandboxes: [one] }) => one?.active === 1);
  database.states.set("ten_test", "suspended");
  await tell({ kind: "tenant", id: "ten_test", suspended: true });
  const [during] = (await sandboxes()).sandboxes;
  assert.equal(during?.state, "ending");
  assert.equal((await send(spec).answer).error?.code, "tenant_suspended");
  assert.equal((await running.answer).body.toString(), '"done"');
  await sandboxes(({ total }) => total === 0);
  database.states.clear();
  await tell({ kind: "tenant", id: "ten_test" });
  assert.equal((await send(spec).answer).body.toString(), '"done"');
});

test("of a tenant that is gone nothing is left: what runs is ended, snapshots and versions are forgotten", async () => {
  const frozen = await deploy(HELLO, { isolation: "microvm", reuse: "fresh" });
  await tell({ kind: "function", id: frozen.functionId, versionId: frozen.versionId });
  await told(frozen, "ready");
  const spec = await deploy("import time\ndef handler(event, context):\n  time.sleep(60)\n");
  const running = send(spec);
  await running.attached;
  await sandboxd.busy();
  database.states.set("ten_test", "gone");
  database.versions.clear();
  await tell({ kind: "tenant", id: "ten_test", suspended: true, deleted: true });
  assert.ok((await running.answer).error);
  await told(frozen, "none");
  assert.equal(sandboxd.frozen.size, 0);
  await sandboxes(({ total }) => total === 0);
  database.states.clear();
  await tell({ kind: "tenant", id: "ten_test" });
  assert.equal((await send(spec).answer).error?.code, "version_not_found", "nothing is remembered");
});

test("what became of tenants while nobody listened is looked up", async () => {
  const spec = await deploy(HELLO);
  await send(spec).answer;
  assert.equal((await sandboxes()).total, 1);
  database.states.set("ten_test", "gone");
  await producer.redis.client("KILL", "TYPE", "pubsub");
  await sandboxes(({ total }) => total === 0);
  assert.equal((await send(spec).answer).error?.code, "tenant_suspended");
});
