import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { InvocationProducer } from "#queue/invocation-queue";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { WorkerSide } from "../testkit/worker-side.ts";

/** No worker takes anything here unless a test starts one. */
let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig({ queueWaitMs: 60_000 });
  await rig.worker.stop();
  await rig.publish("fn");
});
after(() => rig?.stop());

const codeOf = async (response: Response): Promise<unknown> =>
  ((await response.json()) as { code: unknown }).code;

test("a caller that hangs up while it waits takes its job along", async () => {
  const producer = new InvocationProducer(rig.redis.url, (error) => assert.fail(error));
  const client = connect(Number(new URL(rig.url).port), "127.0.0.1");
  client.write(`GET /f/fn/waiting HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${rig.key}\r\n\r\n`);
  await until(async () => (await producer.depth()) === 1);
  client.destroy();
  await until(async () => (await producer.depth()) === 0);
  await producer.close();
});

test("nobody takes the request in time: 503 queue_timeout, and its job is gone", async () => {
  const other = await rig.another({ queueWaitMs: 150 });
  const response = await fetch(`${other.url}/f/fn/late`, {
    headers: { authorization: `Bearer ${rig.key}` },
  });
  assert.equal(response.status, 503);
  assert.equal(response.headers.get("retry-after"), "1");
  assert.equal(await codeOf(response), "queue_timeout");
  const producer = new InvocationProducer(rig.redis.url, (error) => assert.fail(error));
  await until(async () => (await producer.depth()) === 0);
  await producer.close();
  await other.gateway.drain();
});

test("a worker that took a job and died before it said so: its caller is told, not left waiting", async () => {
  const dying = new WorkerSide(rig.redis.url, rig.secret, "node_dying");
  await dying.start();
  const headers = { authorization: `Bearer ${rig.key}` };
  assert.equal((await fetch(`${rig.url}/f/fn/first`, { headers })).status, 200);
  // The link is there, the invocation never announced: what a kill -9 within the first milliseconds leaves.
  const buried = Promise.withResolvers<void>();
  dying.behaviours.set("/second", async () => {
    dying.dropLinks();
    await buried.promise;
  });
  const response = await fetch(`${rig.url}/f/fn/second`, { headers });
  assert.equal(response.status, 502);
  assert.equal(await codeOf(response), "worker_lost");
  buried.resolve();
  await dying.stop();
});

test("a request that Redis has lost is told so when Redis is back", async () => {
  const producer = new InvocationProducer(rig.redis.url, () => {});
  const answer = rig.fetch("/f/fn/lost");
  await until(async () => (await producer.depth()) === 1);
  const [job] = await producer.redis.keys("cloister:invocations:inv_*");
  assert.ok(job);
  await producer.redis.flushall();
  await producer.redis.client("KILL", "TYPE", "pubsub");
  const response = await answer;
  assert.equal(response.status, 503);
  assert.equal(await codeOf(response), "dependency_unavailable");
  await producer.close();
});

/** Redis tells nobody when a queue's length changes: looked at until it is as wanted, at most 10 s. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    assert.ok(performance.now() < end, "gave up after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
