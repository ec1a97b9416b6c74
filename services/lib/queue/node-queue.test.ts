import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { InvocationJob } from "#contracts/invocation";
import { invocationJob } from "#testkit/invocation-job";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { InvocationConsumer } from "./invocation-consumer.ts";
import { InvocationProducer } from "./invocation-producer.ts";
import { queueOf } from "./node-queue.ts";
import {
  type NodeHeartbeat,
  nodeHeartbeatSchema,
  readNodes,
  removeHeartbeat,
  writeHeartbeat,
} from "./nodes.ts";
import type { QueuedCall } from "./outbox.ts";
import { Publisher, Subscriber } from "./pubsub.ts";
import { connectRedis, disconnectRedis } from "./redis.ts";

const NODE = "node_1";
let server: RedisServer;
before(async () => {
  server = await startRedisServer();
});
after(() => server.stop());

const heartbeat = (id: string, atMs: number): NodeHeartbeat =>
  nodeHeartbeatSchema.parse({
    id,
    atMs,
    pid: 1,
    startedAtMs: atMs,
    draining: false,
    sandboxd: true,
    kinds: ["container"],
    images: { node24: "0".repeat(64) },
    memoryMb: 1024,
    memoryReservedMb: 256,
    invocations: 0,
    concurrency: 100,
    warm: 1,
    busy: 0,
    prepared: 2,
  });

const fail = (error: Error): void => assert.fail(error);

/** Puts a call in a queue; resolves when it is there. What is put within one turn is one job. */
async function put(producer: InvocationProducer, id: string, node = NODE): Promise<QueuedCall> {
  const failed = Promise.withResolvers<never>();
  const call = producer.add(invocationJob(id), node, failed.reject);
  const left = new Promise((resolve) => {
    setImmediate(resolve);
  }).then(() => call.state());
  await Promise.race([left, failed.promise]);
  return call;
}

test("a job reaches a consumer once, whole, and leaves nothing in Redis", async () => {
  const producer = new InvocationProducer(server.url, fail);
  const consumer = new InvocationConsumer(server.url, NODE, fail);
  const seen: InvocationJob[] = [];
  const done = Promise.withResolvers<void>();
  await consumer.start(
    async (taken) => {
      seen.push(taken);
      if (seen.length === 20) done.resolve();
    },
    { concurrency: 4 },
  );
  const sent = Array.from({ length: 20 }, (_, index) => invocationJob(`inv_a${index}`));
  for (const one of sent) producer.add(one, NODE, fail);
  await done.promise;
  await consumer.close(5000);
  assert.deepEqual(
    seen.sort((a, b) => a.id.localeCompare(b.id)),
    sent.sort((a, b) => a.id.localeCompare(b.id)),
  );
  const left = (await producer.redis.keys("cloister:*:inv_*")).length;
  assert.equal(left, 0);
  assert.equal(await producer.depth(NODE), 0);
  await producer.close();
});

test("its place tells a waiting job from one that runs and one that is gone", async () => {
  const producer = new InvocationProducer(server.url, fail);
  const first = await put(producer, "inv_b1");
  const second = await put(producer, "inv_b2");
  assert.equal(await first.state(), "waiting");
  assert.equal(await producer.depth(NODE), 2);
  assert.equal(await first.takeBack(), true);
  assert.equal(await first.state(), "gone");
  const consumer = new InvocationConsumer(server.url, NODE, fail);
  const started = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  await consumer.start(
    async () => {
      started.resolve();
      await finish.promise;
    },
    { concurrency: 1 },
  );
  await started.promise;
  assert.equal(await second.state(), "active");
  assert.equal(await second.takeBack(), false);
  finish.resolve();
  await consumer.close(5000);
  assert.equal(await second.state(), "gone");
  await producer.close();
});

test("a handler that throws is reported, its job is not run again", async () => {
  const producer = new InvocationProducer(server.url, fail);
  const errors: string[] = [];
  const consumer = new InvocationConsumer(server.url, NODE, (error) => errors.push(error.message));
  let runs = 0;
  const second = Promise.withResolvers<void>();
  await consumer.start(
    async (taken) => {
      if (taken.id === "inv_c2") return second.resolve();
      runs++;
      throw new Error("broken on purpose");
    },
    { concurrency: 1 },
  );
  const first = await put(producer, "inv_c1");
  await put(producer, "inv_c2");
  await second.promise;
  await consumer.close(5000);
  assert.equal(runs, 1);
  assert.deepEqual(errors, ["broken on purpose"]);
  assert.equal(await first.state(), "gone");
  await producer.close();
});

test("only a job that no worker has had can be taken out, so that it may be given to another node", async () => {
  const producer = new InvocationProducer(server.url, fail);
  const consumer = new InvocationConsumer(server.url, NODE, fail);
  const served = Promise.withResolvers<void>();
  await consumer.start(async () => served.resolve(), { concurrency: 1 });
  const first = await put(producer, "inv_e1");
  await served.promise;
  await consumer.close(5000);
  assert.equal(await first.state(), "gone");
  assert.equal(await first.takeBack(), false, "it was served");
  const second = await put(producer, "inv_e2");
  assert.equal(await second.takeBack(), true);
  assert.equal(await second.takeBack(), false, "it was taken out already");
  await producer.close();
});

test("what a node leaves in Redis that died long ago goes with another's heartbeat", async () => {
  const own = await startRedisServer();
  const producer = new InvocationProducer(own.url, fail);
  const node = heartbeat("node_dead", 1_000_000);
  await writeHeartbeat(producer.redis, node);
  await put(producer, "inv_f1", "node_dead");
  await producer.redis.del("cloister:nodes:node_dead");
  await writeHeartbeat(producer.redis, heartbeat("node_live", 1_050_000));
  assert.equal(await producer.depth("node_dead"), 1, "it may come back");
  const left: (readonly InvocationJob[])[] = [];
  await writeHeartbeat(producer.redis, heartbeat("node_live", 1_200_000), undefined, (jobs) =>
    left.push(jobs),
  );
  assert.deepEqual(
    left.map((jobs) => jobs.map(({ id }) => id)),
    [["inv_f1"]],
  );
  assert.deepEqual((await producer.redis.keys("*")).sort(), [
    "cloister:nodes",
    "cloister:nodes:node_live",
  ]);
  assert.deepEqual(await producer.redis.zrange("cloister:nodes", 0, -1), ["node_live"]);
  await producer.close();
  await own.stop();
});

test("adding while Redis is away fails within its bound and names the outage", async () => {
  const own = await startRedisServer();
  const producer = new InvocationProducer(own.url, () => {});
  producer.open(NODE);
  await producer.ready();
  await own.stop();
  for (const node of ["node_never_met", NODE])
    assert.ok(
      (await new Promise((resolve) =>
        producer.add(invocationJob("inv_d0"), node, resolve),
      )) instanceof Error,
    );
  await producer.close();
});

test("heartbeats are read back and removed", async () => {
  const redis = connectRedis(server.url, "request", fail);
  const node = heartbeat("node_1", Date.now());
  await writeHeartbeat(redis, node);
  await writeHeartbeat(redis, { ...node, id: "node_2" });
  assert.deepEqual(
    (await readNodes(redis)).map((one) => one.id),
    ["node_1", "node_2"],
  );
  await removeHeartbeat(redis, "node_1");
  assert.deepEqual(await readNodes(redis), [{ ...node, id: "node_2" }]);
  await removeHeartbeat(redis, "node_2");
  await disconnectRedis(redis);
});

test("a subscriber hears what is published on its channels until it ends the subscription", async () => {
  const publisher = Publisher.connect(server.url, fail);
  const subscriber = new Subscriber(server.url, fail);
  const heard: unknown[] = [];
  const arrived = Promise.withResolvers<void>();
  const end = await subscriber.subscribe("cloister:changes", (message) => {
    heard.push(message);
    arrived.resolve();
  });
  const connected = connectRedis(server.url, "request", fail);
  await connected.ping();
  let reached = 0;
  while (reached === 0)
    reached = await publisher.publish("cloister:changes", { kind: "key", id: "k" });
  await arrived.promise;
  assert.deepEqual(heard[0], { kind: "key", id: "k" });
  await end();
  assert.equal(await publisher.publish("cloister:changes", {}), 0);
  await Promise.all([publisher.close(), subscriber.close(), disconnectRedis(connected)]);
});

test("a queue tells how many wait and run, and how long the first has waited", async () => {
  const own = await startRedisServer();
  const producer = new InvocationProducer(own.url, fail);
  await writeHeartbeat(producer.redis, heartbeat(NODE, Date.now()));
  assert.deepEqual(await producer.states(), [{ name: queueOf(NODE), waiting: 0, active: 0 }]);
  const beganMs = Date.now();
  const first = await put(producer, "inv_first");
  const firstMs = Date.now();
  while (Date.now() === firstMs) await first.state();
  await put(producer, "inv_second");
  const [state] = await producer.states();
  const nowMs = Date.now();
  assert.deepEqual([state?.waiting, state?.active], [2, 0]);
  const waitedMs = state?.oldestWaitMs ?? -1;
  assert.ok(waitedMs <= nowMs - beganMs, `${waitedMs}`);
  // The second, or later, would have waited less than since the first was in.
  assert.ok(waitedMs > 0, `${waitedMs}`);
  const consumer = new InvocationConsumer(own.url, NODE, fail);
  const begun = Promise.withResolvers<void>();
  const end = Promise.withResolvers<void>();
  await consumer.start(
    async () => {
      begun.resolve();
      await end.promise;
    },
    { concurrency: 1 },
  );
  await begun.promise;
  const [during] = await producer.states();
  assert.deepEqual([during?.waiting, during?.active], [1, 1]);
  end.resolve();
  await consumer.close(5000);
  await producer.close();
  await own.stop();
});
