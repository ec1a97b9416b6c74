import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { InvocationProducer } from "#queue/invocation-producer";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { WorkerSide } from "../testkit/worker-side.ts";

/** Says that it is there and takes nothing, so that what is sent to it waits. */
let idle: WorkerSide;
let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig({ queueWaitMs: 60_000 });
  idle = new WorkerSide(rig.redis.url, rig.secret, "node_idle");
  await idle.appear();
  await rig.worker.stop();
  await rig.publish("fn");
});
after(async () => {
  await idle?.stop();
  await rig?.stop();
});

const codeOf = async (response: Response): Promise<unknown> =>
  ((await response.json()) as { code: unknown }).code;

const depth = async (producer: InvocationProducer): Promise<number> => producer.depth("node_idle");

test("a caller that hangs up while it waits takes its job along", async () => {
  const producer = new InvocationProducer(rig.redis.url, (error) => assert.fail(error));
  const client = connect(Number(new URL(rig.url).port), "127.0.0.1");
  client.write(`GET /f/fn/waiting HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${rig.key}\r\n\r\n`);
  await until(async () => (await depth(producer)) === 1);
  client.destroy();
  await until(async () => (await depth(producer)) === 0);
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
  await until(async () => (await depth(producer)) === 0);
  await producer.close();
  await other.gateway.drain();
});

test("a request that Redis has lost is told so when Redis is back", async () => {
  const producer = new InvocationProducer(rig.redis.url, () => {});
  const answer = rig.fetch("/f/fn/lost");
  await until(async () => (await depth(producer)) === 1);
  const [job] = await producer.redis.keys("cloister:*:inv_*");
  assert.ok(job);
  await producer.redis.flushall();
  await producer.redis.client("KILL", "TYPE", "pubsub");
  const response = await answer;
  assert.equal(response.status, 503);
  assert.equal(await codeOf(response), "dependency_unavailable");
  await producer.close();
});

test("a worker that took a job and died before it said so: its caller is told, not left waiting", async () => {
  const dying = new WorkerSide(rig.redis.url, rig.secret, "node_dying");
  await idle.beat({ draining: true });
  await dying.start();
  assert.equal((await rig.fetch("/f/fn/first")).status, 200);
  // The link is there, the invocation never announced: what a kill -9 within the first milliseconds leaves.
  const buried = Promise.withResolvers<void>();
  dying.behaviours.set("/second", async () => {
    dying.mute();
    dying.dropLinks();
    await buried.promise;
  });
  const response = await rig.fetch("/f/fn/second");
  assert.equal(response.status, 502);
  assert.equal(await codeOf(response), "worker_lost");
  buried.resolve();
  await dying.stop();
});

/** Redis tells nobody when a queue's length changes: looked at until it is as wanted, at most 10 s. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    assert.ok(performance.now() < end, "gave up after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
