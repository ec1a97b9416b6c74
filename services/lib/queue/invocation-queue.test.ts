import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { InvocationJob } from "#contracts/invocation";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { InvocationConsumer, InvocationProducer } from "./invocation-queue.ts";
import { readNodes, removeHeartbeat, writeHeartbeat } from "./nodes.ts";
import { Publisher, Subscriber } from "./pubsub.ts";
import { connectRedis, disconnectRedis } from "./redis.ts";

let server: RedisServer;
before(async () => {
  server = await startRedisServer();
});
after(() => server.stop());

const fail = (error: Error): void => assert.fail(error);

function job(id: string): InvocationJob {
  const now = Date.now();
  return {
    id,
    tenantId: "ten_1",
    functionId: "fn_1",
    versionId: "ver_1",
    kind: "http",
    head: { method: "GET", url: "http://localhost/", path: "/", headers: [["a", "b"]] },
    bodyFollows: false,
    replyTo: "unix:/tmp/nobody.sock",
    acceptedAtMs: now,
    expiresAtMs: now + 1000,
  };
}

test("a job reaches a consumer once, whole, and leaves nothing in Redis", async () => {
  const producer = new InvocationProducer(server.url, fail);
  const consumer = new InvocationConsumer(server.url, fail);
  const seen: InvocationJob[] = [];
  const done = Promise.withResolvers<void>();
  await consumer.start(
    async (taken) => {
      seen.push(taken);
      if (seen.length === 20) done.resolve();
    },
    { concurrency: 4 },
  );
  const sent = Array.from({ length: 20 }, (_, index) => job(`inv_a${index}`));
  await Promise.all(sent.map((one) => producer.add(one)));
  await done.promise;
  await consumer.close(5000);
  assert.deepEqual(
    seen.sort((a, b) => a.id.localeCompare(b.id)),
    sent.sort((a, b) => a.id.localeCompare(b.id)),
  );
  const left = (await producer.redis.keys("cloister:invocations:inv_*")).length;
  assert.equal(left, 0);
  assert.equal(await producer.depth(), 0);
  await producer.close();
});

test("state and remove tell a waiting job from one that runs and one that is gone", async () => {
  const producer = new InvocationProducer(server.url, fail);
  await producer.add(job("inv_b1"));
  await producer.add(job("inv_b2"));
  assert.equal(await producer.state("inv_b1"), "waiting");
  assert.equal(await producer.depth(), 2);
  assert.equal(await producer.remove("inv_b1"), true);
  assert.equal(await producer.state("inv_b1"), "gone");
  const consumer = new InvocationConsumer(server.url, fail);
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
  assert.equal(await producer.state("inv_b2"), "active");
  assert.equal(await producer.remove("inv_b2"), false);
  finish.resolve();
  await consumer.close(5000);
  assert.equal(await producer.state("inv_b2"), "gone");
  await producer.close();
});

test("a handler that throws is reported, its job is not run again", async () => {
  const producer = new InvocationProducer(server.url, fail);
  const errors: string[] = [];
  const consumer = new InvocationConsumer(server.url, (error) => errors.push(error.message));
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
  await producer.add(job("inv_c1"));
  await producer.add(job("inv_c2"));
  await second.promise;
  await consumer.close(5000);
  assert.equal(runs, 1);
  assert.deepEqual(errors, ["broken on purpose"]);
  assert.equal(await producer.state("inv_c1"), "gone");
  await producer.close();
});

test("adding while Redis is away fails within its bound and names the outage", async () => {
  const own = await startRedisServer();
  const producer = new InvocationProducer(own.url, () => {});
  await producer.ready();
  await own.stop();
  await assert.rejects(producer.add(job("inv_d1")));
  await producer.close();
});

test("heartbeats are read back and removed", async () => {
  const redis = connectRedis(server.url, "request", fail);
  const node = {
    id: "node_1",
    pid: 1,
    atMs: Date.now(),
    startedAtMs: Date.now(),
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
  };
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
  const producer = new InvocationProducer(server.url, fail);
  assert.deepEqual(await producer.states(), [{ name: "invocations", waiting: 0, active: 0 }]);
  const beganMs = Date.now();
  await producer.add(job("inv_first"));
  const firstMs = Date.now();
  while (Date.now() === firstMs) await producer.state("inv_first");
  await producer.add(job("inv_second"));
  const [state] = await producer.states();
  const nowMs = Date.now();
  assert.deepEqual([state?.waiting, state?.active], [2, 0]);
  const waitedMs = state?.oldestWaitMs ?? -1;
  assert.ok(waitedMs <= nowMs - beganMs, `${waitedMs}`);
  // The second, or later, would have waited less than since the first was in.
  assert.ok(waitedMs > 0, `${waitedMs}`);
  const consumer = new InvocationConsumer(server.url, fail);
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
});
