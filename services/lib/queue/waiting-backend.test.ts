import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { invocationJob } from "#testkit/invocation-job";
import { clientsWait, type RedisServer, startRedisServer } from "#testkit/redis-server";
import { InvocationConsumer } from "./invocation-consumer.ts";
import { InvocationProducer } from "./invocation-producer.ts";
import type { QueuedCall } from "./outbox.ts";

let server: RedisServer;
let producer: InvocationProducer;
const fail = (error: Error): void => assert.fail(error);

before(async () => {
  server = await startRedisServer();
  producer = new InvocationProducer(server.url, fail);
});
after(async () => {
  await producer.close();
  await server.stop();
});

/** Puts a call in a queue as a job of its own; resolves when it is there. */
async function put(node: string, id: string): Promise<QueuedCall> {
  const call = producer.add(invocationJob(id), node, fail);
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  await call.state();
  return call;
}

/** A worker whose calls end at once, and how many of them it has had. */
async function worker(node: string, concurrency = 100) {
  const consumer = new InvocationConsumer(server.url, node, fail);
  const served: string[] = [];
  let heard = Promise.withResolvers<void>();
  await consumer.start(
    async ({ id }) => {
      served.push(id);
      heard.resolve();
    },
    { concurrency },
  );
  const until = async (count: number): Promise<void> => {
    while (served.length < count) {
      await heard.promise;
      heard = Promise.withResolvers();
    }
  };
  return { consumer, served, until };
}

test("a job is given to a worker that waits without another word from it", async () => {
  const code = `
    const { InvocationConsumer } = await import(${JSON.stringify(join(import.meta.dirname, "invocation-consumer.ts"))});
    const consumer = new InvocationConsumer(${JSON.stringify(server.url)}, "node_word", console.error);
    await consumer.start(async ({ id }) => console.log(id), { concurrency: 10 });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    await put("node_word", "inv_word1");
    assert.equal((await lines.next()).value, "inv_word1");
    await clientsWait(producer.redis, 1);
    child.kill("SIGSTOP");
    while (!/ T /.test(readFileSync(`/proc/${child.pid}/stat`, "latin1")));
    const call = await put("node_word", "inv_word2");
    assert.equal(await call.state(), "active");
    assert.equal(await call.takeBack(), false);
    child.kill("SIGCONT");
    assert.equal((await lines.next()).value, "inv_word2");
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
});

test("jobs that wait are all served, each once, by a worker that has room for few", async () => {
  const ids = Array.from({ length: 12 }, (_, index) => `inv_room${index}`);
  for (const id of ids) await put("node_room", id);
  const { consumer, served, until } = await worker("node_room", 1);
  await until(ids.length);
  await consumer.close(5000);
  assert.deepEqual(served, ids);
});

test("a Redis that has forgotten BullMQ's scripts gives the job that came first all the same", async () => {
  const { consumer, served, until } = await worker("node_script");
  await clientsWait(producer.redis, 1);
  await producer.redis.script("FLUSH");
  await put("node_script", "inv_script1");
  await until(1);
  await put("node_script", "inv_script2");
  await until(2);
  await consumer.close(5000);
  assert.deepEqual(served, ["inv_script1", "inv_script2"]);
});

test("a wait whose connection broke goes on with the next one", async () => {
  const { consumer, served, until } = await worker("node_break");
  await clientsWait(producer.redis, 1);
  await producer.redis.client("KILL", "TYPE", "normal", "SKIPME", "yes");
  await clientsWait(producer.redis, 1);
  for (const id of ["inv_break1", "inv_break2", "inv_break3"]) await put("node_break", id);
  await until(3);
  await consumer.close(5000);
  assert.deepEqual(served, ["inv_break1", "inv_break2", "inv_break3"]);
});

test("whenever a worker closes, a job that comes then is served by it or waits for another", async () => {
  let left = 0;
  for (let round = 0; round < 60; round++) {
    const { consumer, served } = await worker("node_close");
    const closing = new Promise<void>((resolve) => {
      setTimeout(() => resolve(consumer.close(10_000)), round % 3);
    });
    const call = await put("node_close", `inv_close${round}`);
    await closing;
    const has = served.includes(`inv_close${round}`);
    assert.equal(await call.state(), has ? "gone" : "waiting");
    if (!has) {
      left++;
      assert.equal(await call.takeBack(), true);
    }
  }
  assert.ok(left < 60, "some came before");
});

test("a worker that is paused takes again when it may", async () => {
  const { consumer, served, until } = await worker("node_pause");
  await clientsWait(producer.redis, 1);
  consumer.pause();
  const ids = Array.from({ length: 6 }, (_, index) => `inv_pause${index}`);
  for (const id of ids) await put("node_pause", id);
  // What it had asked for before may have come; it asks for no more.
  assert.ok(served.length <= 2);
  consumer.resume();
  await until(ids.length);
  await consumer.close(5000);
  assert.deepEqual(served, ids);
});
