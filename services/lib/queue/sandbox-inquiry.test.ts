import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { SandboxFilter } from "#contracts/live-sandbox";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import {
  type NodeHeartbeat,
  nodeHeartbeatSchema,
  removeHeartbeat,
  writeHeartbeat,
} from "./nodes.ts";
import { Publisher, Subscriber } from "./pubsub.ts";
import { connectRedis, disconnectRedis, type Redis } from "./redis.ts";
import { answerInquiries, askSandboxes } from "./sandbox-inquiry.ts";

let server: RedisServer;
let redis: Redis;
let subscriber: Subscriber;
before(async () => {
  server = await startRedisServer();
  redis = connectRedis(server.url, "request");
  subscriber = new Subscriber(server.url);
});
after(async () => {
  await subscriber.close();
  await disconnectRedis(redis);
  await server.stop();
});

const heartbeat = (id: string): NodeHeartbeat =>
  nodeHeartbeatSchema.parse({
    id,
    pid: 1,
    atMs: Date.now(),
    startedAtMs: Date.now(),
    draining: false,
    sandboxd: true,
    kinds: [],
    images: {},
    memoryMb: 1,
    memoryReservedMb: 0,
    invocations: 0,
    concurrency: 1,
    warm: 0,
    busy: 0,
    prepared: 0,
  });

/** A node that answers. */
async function node(nodeId: string, running: number, asked: SandboxFilter[] = []) {
  const own = new Subscriber(server.url);
  const publisher = Publisher.connect(server.url);
  await writeHeartbeat(redis, heartbeat(nodeId));
  await answerInquiries({ subscriber: own, publisher }, (filter, limit) => {
    asked.push(filter);
    return { nodeId, running, total: limit, sandboxes: [] };
  });
  return {
    async leave() {
      await removeHeartbeat(redis, nodeId);
      await Promise.all([own.close(), publisher.close()]);
    },
  };
}

test("all nodes that live are asked, and those that are silent are named", async () => {
  assert.deepEqual(await askSandboxes({ redis, subscriber }), { nodes: [], silent: [] });
  const asked: SandboxFilter[] = [];
  const nodes = [await node("node_b", 2, asked), await node("node_a", 1)];
  // What is no inquiry, or would have the answer go elsewhere, is not answered.
  for (const text of ["{}", '"x"', '{"answerTo":"cloister:changes"}', "no JSON"])
    await redis.publish("cloister:sandboxes", text);
  const told = await askSandboxes({ redis, subscriber }, { tenantId: "ten_1" });
  assert.deepEqual(
    told.nodes.map(({ nodeId, running }) => [nodeId, running]),
    [
      ["node_a", 1],
      ["node_b", 2],
    ],
  );
  assert.deepEqual(told.silent, []);
  assert.deepEqual(asked, [{ tenantId: "ten_1" }]);
  await writeHeartbeat(redis, heartbeat("node_silent"));
  assert.deepEqual((await askSandboxes({ redis, subscriber })).silent, ["node_silent"]);
  await removeHeartbeat(redis, "node_silent");
  for (const one of nodes) await one.leave();
  assert.deepEqual(await askSandboxes({ redis, subscriber }), { nodes: [], silent: [] });
});

test("a node that hears and does not answer is not waited for beyond the bound", async () => {
  const deaf = new Subscriber(server.url);
  await deaf.subscribe("cloister:sandboxes", () => {});
  await writeHeartbeat(redis, heartbeat("node_deaf"));
  const answering = await node("node_c", 0);
  const { nodes, silent } = await askSandboxes({ redis, subscriber });
  assert.deepEqual([nodes.map(({ nodeId }) => nodeId), silent], [["node_c"], ["node_deaf"]]);
  await removeHeartbeat(redis, "node_deaf");
  await deaf.close();
  await answering.leave();
});

test("without Redis it is said so", async () => {
  const away = connectRedis("unix:/nowhere/redis.sock", "request");
  const listening = new Subscriber("unix:/nowhere/redis.sock");
  await assert.rejects(askSandboxes({ redis: away, subscriber: listening }, {}, 50), {
    code: "dependency_unavailable",
  });
  away.disconnect();
  await listening.close();
});
