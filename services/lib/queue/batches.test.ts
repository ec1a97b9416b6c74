import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { LIMITS } from "#contracts/function";
import type { InvocationJob } from "#contracts/invocation";
import { invocationJob } from "#testkit/invocation-job";
import { clientsWait, type RedisServer, startRedisServer } from "#testkit/redis-server";
import { InvocationConsumer } from "./invocation-consumer.ts";
import { InvocationProducer } from "./invocation-producer.ts";
import { openQueue, PREFIX, queueOf } from "./node-queue.ts";
import { BATCH, type QueuedCall } from "./outbox.ts";

/** Batches on a real Redis. Each test has a node of its own. */
let server: RedisServer;
let producer: InvocationProducer;
before(async () => {
  server = await startRedisServer();
  producer = new InvocationProducer(server.url, fail);
  await producer.ready();
});
after(async () => {
  await producer.close();
  await server.stop();
});

const fail = (error: Error): void => assert.fail(error);

const job = (id: string, body = ""): InvocationJob =>
  invocationJob(id, body === "" ? {} : { body: { text: body } });

const turn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

/** Puts calls in the queue in one turn: the first alone, the others, which come while it is on its way, together. Resolves when all are there. */
async function putTogether(node: string, ids: readonly string[], body = ""): Promise<QueuedCall[]> {
  producer.open(node);
  const calls = ids.map((id) => producer.add(job(id, body), node, fail));
  while (calls.some(({ batch }) => !batch)) await turn();
  await Promise.all(calls.map((call) => call.state()));
  return calls;
}

/** The ids of the calls in each job that waits, the first job first. */
async function jobsOf(node: string): Promise<string[][]> {
  const queue = openQueue(node, producer.redis);
  const jobs = await queue.getJobs(["waiting"], 0, -1, true);
  await queue.close();
  return jobs.map(({ data }) => data.map(({ id }) => id));
}

const names = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, n) => `inv_${prefix}${n}`);

/** A consumer whose calls begin when they are told, and end when the test says so. */
async function consumerOf(node: string, concurrency: number, sated = () => false) {
  const begun: string[] = [];
  const lost: string[] = [];
  const ends = new Map<string, () => void>();
  let changed = (): void => {};
  const consumer = new InvocationConsumer(server.url, node, fail);
  await consumer.start(
    async ({ id }) => {
      begun.push(id);
      const { promise, resolve } = Promise.withResolvers<void>();
      ends.set(id, resolve);
      changed();
      await promise;
    },
    {
      concurrency,
      sated,
      lost: (calls) => {
        lost.push(...calls.map(({ id }) => id));
        changed();
      },
    },
  );
  const until = (condition: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      changed = () => condition() && resolve();
      changed();
    });
  return { consumer, begun, lost, until, end: (id: string) => ends.get(id)?.() };
}

test("calls that go together are one job, each is served on its own, and the job is done with the last", async () => {
  const ids = names("a", 5);
  const [, slow] = await putTogether("node_a", ids);
  assert.deepEqual(await jobsOf("node_a"), [ids.slice(0, 1), ids.slice(1)]);
  const { consumer, begun, until, end } = await consumerOf("node_a", 10);
  await until(() => begun.length === 5);
  for (const id of ids) if (id !== "inv_a1") end(id);
  const [next] = await putTogether("node_a", ["inv_a5"]);
  await until(() => begun.length === 6);
  assert.equal(await slow?.state(), "active", "one of the job's calls runs yet");
  end("inv_a1");
  end("inv_a5");
  await consumer.close(5000);
  assert.equal(await slow?.state(), "gone");
  assert.equal(await next?.state(), "gone");
  assert.deepEqual(begun, [...ids, "inv_a5"]);
});

test("a slow call of a job takes up its own place and no other: the next job is taken when one of them is free", async () => {
  const [, slow] = await putTogether("node_b", ["inv_b0", "inv_b1", "inv_b2"]);
  const { consumer, begun, until, end } = await consumerOf("node_b", 3);
  await until(() => begun.length === 3);
  const [next] = await putTogether("node_b", ["inv_b3"]);
  assert.equal(await next?.state(), "waiting", "all places are taken");
  end("inv_b2");
  await until(() => begun.length === 4);
  assert.equal(await slow?.state(), "active");
  for (const id of begun) end(id);
  await consumer.close(5000);
});

test("no job is beyond its bounds, in calls and in bytes", async () => {
  const ids = names("c", BATCH.items * 2 + 2);
  await putTogether("node_c", ids);
  assert.deepEqual(
    (await jobsOf("node_c")).map(({ length }) => length),
    [1, BATCH.items, BATCH.items, 1],
  );
  assert.equal(await producer.depth("node_c"), ids.length, "what is told of a queue counts calls");
  const large = "x".repeat(LIMITS.inlineBodyBytes);
  await putTogether("node_d", names("d", 10), large);
  const queue = openQueue("node_d", producer.redis);
  const jobs = await queue.getJobs(["waiting"]);
  await queue.close();
  assert.equal(jobs.flatMap(({ data }) => data).length, 10);
  for (const { data } of jobs) {
    let bytes = 0;
    for (const { body } of data) if (body && "text" in body) bytes += body.text.length;
    assert.ok(bytes <= BATCH.bytes, `${bytes}`);
  }
});

test("calls are taken out of a job that waits, each once, and the others are served, each once", async () => {
  const calls = await putTogether("node_e", names("e", 6));
  const [, one, two, three, , five] = calls;
  const outcomes = await Promise.all([one, three, three].map((call) => call?.takeBack()));
  assert.deepEqual(outcomes, [true, true, false]);
  await two?.state();
  assert.deepEqual(await jobsOf("node_e"), [["inv_e0"], ["inv_e2", "inv_e4", "inv_e5"]]);
  assert.equal(await five?.takeBack(), true, "out of the job that is left");
  const { consumer, begun, until, end } = await consumerOf("node_e", 10);
  await until(() => begun.length === 3);
  assert.equal(await two?.takeBack(), false, "a worker has it");
  for (const id of begun) end(id);
  await consumer.close(5000);
  assert.deepEqual(begun, ["inv_e0", "inv_e2", "inv_e4"]);
});

test("a call that has not left its process is taken back without Redis", async () => {
  producer.open("node_f");
  const [, second, third] = names("f", 3).map((id) => producer.add(job(id), "node_f", fail));
  assert.equal(await second?.takeBack(), true);
  while (!third?.batch) await turn();
  assert.equal(await third.state(), "waiting");
  assert.deepEqual(await jobsOf("node_f"), [["inv_f0"], ["inv_f2"]]);
});

test("at a crowded node more gathers: until a worker has taken what is on its way, or for a bounded time", async (t) => {
  producer.open("node_i");
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const [first, second, ...rest] = names("i", 4).map((id) =>
    producer.add(job(id), "node_i", fail, true),
  ) as [QueuedCall, QueuedCall, ...QueuedCall[]];
  assert.equal(await first.state(), "waiting");
  await turn();
  assert.equal(second.batch, undefined, "Redis has the first, no worker does");
  first.taken();
  while (!second.batch) await turn();
  assert.ok(rest.every(({ batch }) => batch === second.batch));
  const later = producer.add(job("inv_i4"), "node_i", fail, true);
  assert.equal(await second.state(), "waiting");
  await turn();
  assert.equal(later.batch, undefined);
  t.mock.timers.tick(1000);
  while (!later.batch) await turn();
  await later.state();
  assert.deepEqual(await jobsOf("node_i"), [
    ["inv_i0"],
    ["inv_i1", "inv_i2", "inv_i3"],
    ["inv_i4"],
  ]);
});

/** A process that takes the calls of a node; prints those it begins, and ends the ones whose name is in `fast`. */
function workerProcess(node: string, fast: readonly string[]) {
  const code = `
    const { InvocationConsumer } = await import(${JSON.stringify(join(import.meta.dirname, "invocation-consumer.ts"))});
    const consumer = new InvocationConsumer(${JSON.stringify(server.url)}, ${JSON.stringify(node)}, console.error);
    const fast = ${JSON.stringify(fast)};
    await consumer.start(async ({ id }) => {
      console.log(id);
      if (!fast.includes(id)) await new Promise(() => {});
    }, { concurrency: 10 });`;
  return spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

test("a worker to which more calls are of no use leaves them to gather, and looks again when one ends, or after a while", async () => {
  let sated = false;
  const { consumer, begun, until, end } = await consumerOf("node_s", 100, () => sated);
  await putTogether("node_s", ["inv_s0", "inv_s1"]);
  await until(() => begun.length === 2);
  // It has asked for the next one already, which it takes in any case.
  await clientsWait(producer.redis, 1);
  sated = true;
  await putTogether("node_s", ["inv_s2"]);
  await until(() => begun.length === 3);
  await clientsWait(producer.redis, 0);
  const [left] = await putTogether("node_s", ["inv_s3"]);
  end("inv_s0");
  // Longer than it takes to look again.
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await left?.state(), "waiting");
  assert.equal(begun.length, 3);
  // No call ends meanwhile.
  sated = false;
  await until(() => begun.includes("inv_s3"));

  await clientsWait(producer.redis, 1);
  sated = true;
  await putTogether("node_s", ["inv_s4"]);
  await until(() => begun.includes("inv_s4"));
  await clientsWait(producer.redis, 0);
  await putTogether("node_s", ["inv_s5"]);
  const closing = consumer.close(30_000);
  for (const id of begun) end(id);
  await closing;
  assert.equal(begun.includes("inv_s5"), false, "one that closes takes no more");
});

test("a job whose worker was killed is not run again: all its calls are told of as lost", {
  timeout: 60_000,
}, async () => {
  const ids = names("g", 4);
  const child = workerProcess("node_g", ids.slice(1, 3));
  const begun: string[] = [];
  const lines = createInterface(child.stdout);
  const all = new Promise<void>((resolve) => {
    lines.on("line", (id) => {
      begun.push(id);
      if (begun.length === ids.length) resolve();
    });
  });
  const [, call] = await putTogether("node_g", ids);
  await all;
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.deepEqual(begun, ids);
  assert.equal(await call?.state(), "active");
  // What the lock's end, and a look for such jobs before and after it, would find a minute later.
  const key = (name: string): string => `${PREFIX}:${queueOf("node_g")}:${name}`;
  const { redis } = producer;
  const active = await redis.lrange(key("active"), 0, -1);
  assert.equal(await redis.del(active.map((id) => key(`${id}:lock`))), 2);
  await redis.del(key("stalled-check"));
  await redis.sadd(key("stalled"), active);
  const next = await consumerOf("node_g", 10);
  await next.until(() => next.lost.length === ids.length);
  await putTogether("node_g", ["inv_g4"]);
  await next.until(() => next.begun.length > 0);
  next.end("inv_g4");
  await next.consumer.close(5000);
  assert.deepEqual(next.lost.sort(), ids);
  assert.deepEqual(next.begun, ["inv_g4"], "and what comes later is served");
  assert.equal(await call?.state(), "gone");
});

test("a worker that closes takes no more, and waits for each call of the job it has", async () => {
  await putTogether("node_h", ["inv_h0", "inv_h1", "inv_h2"]);
  const { consumer, begun, until, end } = await consumerOf("node_h", 10);
  await until(() => begun.length === 3);
  end("inv_h0");
  end("inv_h1");
  // It has asked for more, found none, and waits.
  await clientsWait(producer.redis, 1);
  let closed = false;
  const closing = consumer.close(30_000).then(() => {
    closed = true;
  });
  // What comes before it has ended its wait is served like the rest.
  await clientsWait(producer.redis, 0);
  const [later] = await putTogether("node_h", ["inv_h3"]);
  assert.equal(closed, false, "one runs yet");
  end("inv_h2");
  await closing;
  assert.equal(await later?.state(), "waiting");
  assert.deepEqual(begun, ["inv_h0", "inv_h1", "inv_h2"]);
});
