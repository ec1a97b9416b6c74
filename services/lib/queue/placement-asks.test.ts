import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { answerPlacement, askPlacement, type NodePlacement } from "./placement-asks.ts";
import { Publisher, Subscriber } from "./pubsub.ts";
import { connectRedis } from "./redis.ts";

interface Side {
  publisher: Publisher;
  subscriber: Subscriber;
}

let redis: RedisServer;
const sides: Side[] = [];
const problems: string[] = [];

before(async () => {
  redis = await startRedisServer();
});
after(async () => {
  await Promise.all(
    sides.flatMap(({ publisher, subscriber }) => [publisher.close(), subscriber.close()]),
  );
  await redis?.stop();
});

async function side(): Promise<Side> {
  const connection = connectRedis(redis.url, "request");
  // Publishers drop what is said before they are connected.
  await once(connection, "ready");
  const made = { publisher: new Publisher(connection), subscriber: new Subscriber(redis.url) };
  sides.push(made);
  return made;
}

const says = (id: string, more: Partial<NodePlacement> = {}): NodePlacement => ({
  id,
  path: "container",
  reasons: ["so it is"],
  rules: ["node-offers"],
  table: "1",
  paths: {},
  ...more,
});
const CALL = { versionId: "ver_1", tenantId: "ten_1", wanted: "microvm" } as const;

test("each node is asked about the call, and answers for itself", async () => {
  const asker = await side();
  const asked: unknown[] = [];
  for (const id of ["node_a", "node_b"]) {
    const answer = async ({ ask: _ask, ...call }: object & { ask: string }) => {
      asked.push(call);
      return says(id);
    };
    await answerPlacement(await side(), answer, (error) => problems.push(error.message));
  }
  const answers = await askPlacement(asker, CALL, ["node_a", "node_b"], 20_000);
  assert.deepEqual([...answers.keys()].sort(), ["node_a", "node_b"]);
  assert.deepEqual(answers.get("node_a"), says("node_a"));
  assert.deepEqual(asked, [CALL, CALL]);
});

test("a node that stays silent, one that nobody named and one that talks nonsense are left out", async () => {
  const asker = await side();
  const nonsense = async () => ({ ...says("node_c"), path: "moon" }) as never;
  await answerPlacement(await side(), nonsense, () => {});
  const fails = async () => Promise.reject(new Error("no such version"));
  await answerPlacement(await side(), fails, (error) => problems.push(error.message));
  const answers = await askPlacement(asker, CALL, ["node_a", "node_c", "node_d"], 300);
  assert.deepEqual([...answers.keys()], ["node_a"]);
  assert.ok(problems.includes("no such version"));
});

test("with nobody to ask, nobody is waited for", async () => {
  const asker = await side();
  assert.equal((await askPlacement(asker, CALL, [], 3_600_000)).size, 0);
});

test("without Redis the question ends unanswered", async () => {
  const asker = await side();
  await redis.stop();
  assert.equal((await askPlacement(asker, CALL, ["node_a"], 200)).size, 0);
});
