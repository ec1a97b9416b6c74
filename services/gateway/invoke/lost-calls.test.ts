import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { InvocationProducer } from "#queue/invocation-producer";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { headOf, WorkerSide } from "../testkit/worker-side.ts";

/** The workers here write no records: what there is of any, the gateway wrote. */
let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig();
  await rig.publish("fn");
});
after(() => rig?.stop());

interface Row {
  id: string;
  status: string;
  code: string;
  lost: boolean;
  billed: number;
}

type Gateway = Awaited<ReturnType<GatewayRig["another"]>>;

/** What a gateway of its own has recorded once it has drained, and the ids of the jobs it has made. */
async function recordedBy(
  calls: (gateway: Gateway, get: (path: string) => Promise<Response>) => Promise<unknown>,
  change = {},
): Promise<{ rows: Row[]; jobs: string[] }> {
  await rig.db.pool.query("delete from invocations");
  const jobsBefore = rig.worker.jobs.length;
  const gateway = await rig.another(change);
  const headers = { authorization: `Bearer ${rig.key}` };
  await calls(gateway, (path) =>
    fetch(`${gateway.url}${path}`, { headers, signal: AbortSignal.timeout(30_000) }),
  );
  await gateway.gateway.drain();
  const { rows } = await rig.db.pool.query<Row>(
    "select id, status, error_code as code, lost, billed_ms as billed from invocations",
  );
  return { rows, jobs: rig.worker.jobs.slice(jobsBefore).map(({ id }) => id) };
}

test("calls that their worker has ended are its to record", async () => {
  rig.worker.behaviours.set("/fails", async ({ reply }) =>
    reply.error({ code: "function_error", message: "on purpose" }),
  );
  const { rows, jobs } = await recordedBy(async (_, get) => {
    assert.equal((await get("/f/fn/fine")).status, 200);
    assert.equal((await get("/f/fn/fails")).status, 500);
    assert.equal((await get("/f/none/")).status, 404, "was never accepted");
  });
  assert.equal(jobs.length, 2);
  assert.deepEqual(rows, []);
});

test("a call whose worker's link breaks is recorded as lost, with its own id, once", async () => {
  rig.worker.behaviours.set("/dies", async ({ reply }) => {
    reply.announce();
    rig.worker.dropLinks();
  });
  rig.worker.behaviours.set("/dies-later", async ({ reply, gone }) => {
    reply.head(headOf(200));
    reply.sendData(Buffer.from("half"));
    await gone;
  });
  const { rows, jobs } = await recordedBy(async (_, get) => {
    const half = await get("/f/fn/dies-later");
    assert.equal((await get("/f/fn/dies")).status, 502);
    await assert.rejects(half.text());
  });
  assert.deepEqual(rows.map(({ id }) => id).sort(), jobs.sort());
  for (const { status, code, lost, billed } of rows)
    assert.deepEqual([status, code, lost, billed], ["platform_error", "worker_lost", true, 0]);
});

test("a caller that has gone: its worker records it, and if that dies first the gateway does", async () => {
  rig.worker.behaviours.set("/patient", async ({ reply, gone }) => {
    reply.head(headOf(200));
    reply.sendData(Buffer.from("begun"));
    await gone;
  });
  const heard = await recordedBy(async ({ url }, get) => {
    const client = connect(Number(new URL(url).port), "127.0.0.1");
    client.write(
      `GET /f/fn/patient HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${rig.key}\r\n\r\n`,
    );
    await once(client, "data");
    client.destroy();
    // Frames of a link keep their order: when this is answered, how the other ended has been heard.
    assert.equal((await get("/f/fn/fine")).status, 200);
  });
  assert.deepEqual(heard.rows, []);
  // It hears nothing: its link is gone before the caller is.
  const dead = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/deaf", async ({ reply }) => {
    reply.announce();
    await dead.promise;
  });
  const unheard = await recordedBy(async ({ url }) => {
    const client = connect(Number(new URL(url).port), "127.0.0.1");
    client.write(`GET /f/fn/deaf HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${rig.key}\r\n\r\n`);
    await until(async () => rig.worker.jobs.at(-1)?.head.path === "/deaf");
    rig.worker.dropLinks();
    client.destroy();
  });
  dead.resolve();
  assert.equal(unheard.rows.length, 1);
  assert.equal(unheard.rows[0]?.id, unheard.jobs[0]);
  assert.equal(unheard.rows[0]?.lost, true);
});

test("a call that nobody took is recorded by how it ended", async () => {
  // Says that it is there and takes nothing, so that what is sent to it waits.
  const idle = new WorkerSide(rig.redis.url, rig.secret, "node_idle");
  await idle.appear();
  await rig.worker.stop();
  const late = await recordedBy(
    async (_, get) => assert.equal((await get("/f/fn/late")).status, 503),
    { queueWaitMs: 150 },
  );
  assert.deepEqual(
    late.rows.map(({ status, code, lost }) => [status, code, lost]),
    [["platform_error", "queue_timeout", true]],
  );
  const producer = new InvocationProducer(rig.redis.url, (error) => assert.fail(error));
  const gone = await recordedBy(async ({ url }) => {
    const client = connect(Number(new URL(url).port), "127.0.0.1");
    client.write(`GET /f/fn/waits HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${rig.key}\r\n\r\n`);
    await until(async () => (await producer.depth("node_idle")) === 1);
    client.destroy();
    await until(async () => (await producer.depth("node_idle")) === 0);
  });
  assert.deepEqual(
    gone.rows.map(({ status, code, lost }) => [status, code, lost]),
    [["cancelled", "invocation_cancelled", true]],
  );
  await producer.close();
  await idle.stop();
});

/** Redis tells nobody when a queue's length changes: looked at until it is as wanted, at most 10 s. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    assert.ok(performance.now() < end, "gave up after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
