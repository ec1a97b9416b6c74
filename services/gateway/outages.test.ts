import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type GatewayRig, startGatewayRig } from "./testkit/gateway-rig.ts";

let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig();
  await rig.publish("fn");
});
after(() => rig?.stop());

const codeOf = async (response: Response): Promise<unknown> =>
  ((await response.json()) as { code: unknown }).code;

test("a Redis that does not answer is a 503, and calls are served again when it does", async () => {
  assert.equal((await rig.fetch("/f/fn/")).status, 200);
  rig.redis.process.kill("SIGSTOP");
  const [call, ready] = await Promise.all([rig.fetch("/f/fn/stuck"), rig.fetch("/readyz")]);
  assert.equal(call.status, 503);
  assert.equal(await codeOf(call), "dependency_unavailable");
  assert.equal(ready.status, 503);
  assert.deepEqual(((await ready.json()) as { missing: string[] }).missing, ["redis"]);
  rig.redis.process.kill("SIGCONT");
  assert.equal((await rig.fetch("/f/fn/")).status, 200);
});

test("without PostgreSQL what was called before goes on, and the rest says what is missing", async () => {
  await rig.worker.beat();
  assert.equal((await rig.fetch("/f/fn/")).status, 200);
  await rig.postgres.stop();
  assert.equal((await rig.fetch("/f/fn/")).status, 200);
  for (const path of ["/f/other/", "/v1/functions", "/v1/functions/fn/logs"]) {
    const response = await rig.fetch(path);
    assert.equal(response.status, 503, path);
    assert.equal(await codeOf(response), "dependency_unavailable");
  }
  const ready = await rig.fetch("/readyz");
  assert.equal(ready.status, 503);
  const { missing } = (await ready.json()) as { missing: string[] };
  assert.ok(missing.includes("postgresql"));
  assert.ok(!missing.includes("redis"));
  assert.equal((await rig.fetch("/healthz")).status, 200);
});
