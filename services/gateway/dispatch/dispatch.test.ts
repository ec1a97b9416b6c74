import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { createKey } from "#db/keys";
import { ensureTenant } from "#db/tenants";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { answers, type Behaviour, headOf, WorkerSide } from "../testkit/worker-side.ts";

/** A real gateway, queue and reply link; nodes are what the tests say they are. */
let rig: GatewayRig;
let quietKey: string;
let calmKey: string;
const nodes: WorkerSide[] = [];
before(async () => {
  rig = await startGatewayRig({
    queueWaitMs: 60_000,
    backlog: { calls: 60, callsOfTenant: 40 },
  });
  await rig.worker.stop();
  await there(0);
  await rig.publish("any");
  await rig.publish("strict", { isolation: "microvm" });
  quietKey = await otherTenant("quiet");
  calmKey = await otherTenant("calm");
});
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.stop()));
  await there(0);
});
after(() => rig?.stop());

/** A key of another tenant, which has a function of its own. */
async function otherTenant(name: string): Promise<string> {
  const { id } = await ensureTenant(rig.db, name, "trusted");
  const { clear } = await createKey(rig.db, id, "test", ["invoke", "deploy", "read"]);
  const published = await rig.fetch("/v1/functions", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${clear}` },
    body: JSON.stringify({ name: "any", files: { "index.mjs": "export default {};" } }),
  });
  assert.equal(published.status, 201);
  return clear;
}

type Start = Parameters<WorkerSide["start"]>[0];

/** A node that the gateway knows. */
async function node(id: string, change: Start = {}): Promise<WorkerSide> {
  const made = new WorkerSide(rig.redis.url, rig.secret, id);
  nodes.push(made);
  await made.start(change);
  await there(nodes.length);
  return made;
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${rig.url}/metrics`)).text();
  return Number(new RegExp(`^cloister_gateway_${name} (\\d+)$`, "m").exec(text)?.[1]);
}

/** Nothing tells a test that a gateway has heard of something: looked at until it is as wanted, at most 10 s. */
async function until(name: string, wanted: number): Promise<void> {
  const end = performance.now() + 10_000;
  for (let now = await metric(name); now !== wanted; now = await metric(name)) {
    assert.ok(performance.now() < end, `${name} is ${now} and not ${wanted} after 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
const there = (count: number): Promise<void> => until("nodes", count);

interface Problem {
  code: string;
  detail: string;
  remedy: string;
}
const problemOf = async (response: Response): Promise<Problem> =>
  (await response.json()) as Problem;

test("what no live node can serve is refused at once, with the remedy", async () => {
  await node("node_containers", { kinds: ["container"] });
  const response = await rig.fetch("/f/strict/");
  assert.equal(response.status, 503);
  const { code, detail, remedy } = await problemOf(response);
  assert.equal(code, "isolation_unavailable");
  assert.match(detail, /needs a micro-VM, and the nodes that are there offer container/);
  assert.match(remedy, /doctor/);
  assert.equal((await rig.fetch("/f/any/")).status, 200);
});

test("calls go only to nodes that can serve them", async () => {
  const small = await node("node_containers", { kinds: ["container"] });
  const full = await node("node_both", { kinds: ["container", "microvm"] });
  const paths = Array.from({ length: 20 }, (_, n) => (n % 2 ? "/f/strict/" : "/f/any/"));
  const responses = await Promise.all(paths.map((path) => rig.fetch(path)));
  assert.deepEqual(new Set(responses.map(({ status }) => status)), new Set([200]));
  assert.equal(small.jobs.length + full.jobs.length, 20);
  const versions = new Set(small.jobs.map(({ versionId }) => versionId));
  assert.ok(versions.size <= 1, "the node without micro-VMs got calls of one function only");
  assert.ok(full.jobs.length >= 10);
});

test("a call goes where its function is warm, while there is room", async () => {
  const one = await node("node_1", { concurrency: 10 });
  const two = await node("node_2", { concurrency: 10 });
  await rig.fetch("/f/any/");
  const [warm, cold] = one.jobs.length === 1 ? [one, two] : [two, one];
  for (let n = 0; n < 10; n++) await rig.fetch("/f/any/");
  assert.deepEqual([warm.jobs.length, cold.jobs.length], [11, 0]);
});

test("a node that dies: what no worker has begun goes to another, and nothing runs twice", async () => {
  const release = Promise.withResolvers<void>();
  const full = Promise.withResolvers<void>();
  const hold: Behaviour = async (served) => {
    served.reply.announce();
    if (first.jobs.length === 10) full.resolve();
    await release.promise;
    await answers(200)(served);
  };
  const first = await node("node_first", { concurrency: 10 });
  first.behaviours.set("/held", hold);
  const held = (count: number) => Array.from({ length: count }, () => rig.fetch("/f/any/held"));
  const calls = held(9);
  // More places are told of than calls are taken: the rest waits in the queue of this node.
  await first.beat({ concurrency: 40 });
  calls.push(...held(1));
  await full.promise;
  calls.push(...held(20));
  await until("waiting_calls", 20);
  const second = await node("node_second");
  first.mute();
  first.dropLinks();
  const responses = await Promise.all(calls);
  const statuses = responses.map(({ status }) => status);
  assert.equal(statuses.filter((status) => status === 502).length, 10, "those it had begun");
  assert.equal(statuses.filter((status) => status === 200).length, 20, "those it had not");
  assert.equal(second.jobs.length, 20);
  release.resolve();
  const begun = new Set(first.jobs.map(({ id }) => id));
  assert.equal(begun.size, 10);
  for (const { id } of second.jobs) assert.ok(!begun.has(id), `${id} ran twice`);
});

test("without another node what waits is kept for the next worker", async () => {
  const first = new WorkerSide(rig.redis.url, rig.secret, "node_gone");
  await first.appear();
  await there(1);
  const calls = Array.from({ length: 5 }, () => rig.fetch("/f/any/"));
  await until("waiting_calls", 5);
  await first.stop();
  await there(0);
  await until("held_calls", 5);
  const next = await node("node_next");
  const responses = await Promise.all(calls);
  assert.deepEqual(new Set(responses.map(({ status }) => status)), new Set([200]));
  assert.equal(next.jobs.length, 5);
  assert.equal(await metric("held_calls"), 0);
});

test("a flood waits in turn with others: a few of its calls are served before another tenant's", async () => {
  const order: string[] = [];
  const begin = Promise.withResolvers<void>();
  const worker = await node("node_fair", { concurrency: 2 });
  worker.behaviours.set("/flood", async (served) => {
    await begin.promise;
    order.push("flood");
    await answers(200)(served);
  });
  worker.behaviours.set("/quiet", async (served) => {
    order.push("quiet");
    await answers(200)(served);
  });
  const flood = Array.from({ length: 40 }, () => rig.fetch("/f/any/flood"));
  await until("held_calls", 38);
  const quiet = Array.from({ length: 5 }, () =>
    rig.fetch("/f/any/quiet", { headers: { authorization: `Bearer ${quietKey}` } }),
  );
  await until("held_calls", 43);
  begin.resolve();
  for (const response of await Promise.all([...flood, ...quiet]))
    assert.equal(response.status, 200);
  assert.equal(order.length, 45);
  const last = order.lastIndexOf("quiet");
  assert.ok(last < 16, `the five calls were served after ${last - 4} of the flood's 40`);
});

/** Ends an answer that was under way for so many ms, all of which was waiting. */
type Waited = (served: Parameters<Behaviour>[0], ms: number) => void;

async function fewerBesideOthers(waited: Waited): Promise<void> {
  const worker = await node("node_shared", { concurrency: 60, processors: 24 });
  const othersOver = Promise.withResolvers<void>();
  let holding = false;
  const held: (() => void)[] = [];
  worker.behaviours.set("/flood", async (served) => {
    const beganMs = performance.now();
    await new Promise<void>((resolve) => {
      if (holding) held.push(resolve);
      else setTimeout(resolve, 5);
    });
    waited(served, performance.now() - beganMs);
  });
  const others = [quietKey, calmKey].map((key, at) => {
    const came = Promise.withResolvers<void>();
    worker.behaviours.set(`/other/${at}`, async (served) => {
      came.resolve();
      await othersOver.promise;
      await answers(200)(served);
    });
    const headers = { authorization: `Bearer ${key}` };
    return { came, call: (path: string) => rig.fetch(`/f/any/${path}`, { headers }), at };
  });
  for (const { call } of others) assert.equal((await call("")).status, 200);
  const callers = 30;
  let over = false;
  let answered = 0;
  const flood = Array.from({ length: callers }, async () => {
    for (; !over; answered++) assert.equal((await rig.fetch("/f/any/flood")).status, 200);
  });
  /** How many of the flood are at the node once each is either there or held by the gateway. */
  const atNode = async (): Promise<number> => {
    const end = performance.now() + 10_000;
    for (;;) {
      const waiting = await metric("held_calls");
      if (held.length + waiting === callers) return held.length;
      assert.ok(performance.now() < end, `${held.length} and ${waiting} are not all after 10 s`);
    }
  };
  // What its calls wait is learned first.
  while (answered < 200) await new Promise((resolve) => setTimeout(resolve, 5));
  holding = true;
  const alone = await atNode();
  const theirs = others.map(({ call, at }) => call(`other/${at}`));
  for (const { came } of others) await came.promise;
  for (const letGo of held.splice(0)) letGo();
  const beside = await atNode();
  othersOver.resolve();
  for (const call of theirs) assert.equal((await call).status, 200);
  const after = await atNode();
  holding = false;
  over = true;
  for (const letGo of held.splice(0)) letGo();
  await Promise.all(flood);
  // One for each second processor, as for another tenant's next call, or each third, and what little of an answer's own time counts as work.
  const half = (count: number): boolean => count >= 12 && count <= 16;
  const counts = `${[alone, beside, after]}`;
  assert.ok(half(alone) && half(after) && beside >= 8 && beside <= 11, counts);

  // It is known still when all of it has ended and it comes again.
  holding = true;
  const again = Array.from({ length: callers }, () => rig.fetch("/f/any/flood"));
  const anew = await atNode();
  holding = false;
  for (const letGo of held.splice(0)) letGo();
  for (const response of await Promise.all(again)) assert.equal(response.status, 200);
  assert.ok(half(anew), `${anew}`);
}

test("a flood of calls that wait for their functions has few at the nodes when others have called, fewer while their calls are under way, and as many as before when these have ended", () =>
  fewerBesideOthers(({ reply }) => {
    reply.head(headOf(200, [], { phases: { handler_ms: 0 } }));
    reply.end({ handlerMs: 0 });
  }));

test("so has a flood of calls whose functions wait for a processor", () =>
  fewerBesideOthers(({ reply }, ms) => {
    reply.head(headOf(200, [], { phases: { handler_ms: ms } }));
    reply.end({ handlerMs: ms, stalled: 1 });
  }));

test("what waits is bounded: a tenant's calls over it are a 429, all tenants' a 503, and both say when to come again", async () => {
  const begin = Promise.withResolvers<void>();
  const worker = await node("node_full", { concurrency: 1 });
  for (const path of ["/kept", "/other"])
    worker.behaviours.set(path, async (served) => {
      await begin.promise;
      await answers(200)(served);
    });
  const kept = [rig.fetch("/f/any/kept")];
  await until("waiting_calls", 1);
  for (let n = 0; n < 40; n++) kept.push(rig.fetch("/f/any/kept"));
  await until("held_calls", 40);
  const tooMany = await rig.fetch("/f/any/kept");
  assert.equal(tooMany.status, 429);
  assert.equal(tooMany.headers.get("retry-after"), "1");
  const { code, detail } = await problemOf(tooMany);
  assert.equal(code, "backlog_full");
  assert.match(detail, /at most 40 may/);
  const headers = { authorization: `Bearer ${quietKey}` };
  for (let n = 0; n < 20; n++) kept.push(rig.fetch("/f/any/other", { headers }));
  await until("held_calls", 60);
  const full = await rig.fetch("/f/any/other", { headers });
  assert.equal(full.status, 503);
  assert.equal(full.headers.get("retry-after"), "1");
  assert.equal((await problemOf(full)).code, "capacity_exhausted");
  begin.resolve();
  for (const response of await Promise.all(kept)) assert.equal(response.status, 200);
  assert.equal(await metric("held_calls"), 0);
});

test("a caller that hangs up while it waits in the gateway leaves no trace", async () => {
  const begin = Promise.withResolvers<void>();
  const worker = await node("node_one", { concurrency: 1 });
  worker.behaviours.set("/long", async (served) => {
    await begin.promise;
    await answers(200)(served);
  });
  const first = rig.fetch("/f/any/long");
  await until("waiting_calls", 1);
  const abort = new AbortController();
  const gone = rig.fetch("/f/any/long", { signal: abort.signal });
  await until("held_calls", 1);
  abort.abort();
  await assert.rejects(gone);
  await until("held_calls", 0);
  begin.resolve();
  assert.equal((await first).status, 200);
  assert.equal(worker.jobs.length, 1);
});
