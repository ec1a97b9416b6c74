import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AdminClient } from "./testkit/admin-client.ts";
import { type GatewayRig, startGatewayRig } from "./testkit/gateway-rig.ts";
import { UiClient } from "./testkit/ui-client.ts";

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

test("without Redis the dashboard says so, and shows what is in the database", async () => {
  const ui = new UiClient(rig.url);
  await ui.signIn(rig.adminKey);
  rig.redis.process.kill("SIGSTOP");
  try {
    const [overview, tenants, ...away] = await Promise.all(
      ["", "/tenants", "/nodes", "/queues", "/sandboxes", "/live/events"].map((page) =>
        ui.send(`/ui${page}`),
      ),
    );
    assert.equal(overview?.status, 200);
    assert.match(overview.text, /Redis cannot be reached/);
    assert.equal(tenants?.status, 200);
    assert.deepEqual(
      away.map(({ status }) => status),
      [503, 503, 503, 503],
    );
    for (const { text } of away) assert.match(text, /<h1>.*cannot be reached/);
  } finally {
    rig.redis.process.kill("SIGCONT");
  }
});

test("while Redis does not answer a tenant is suspended all the same, and nothing is deleted that may have something running", async () => {
  const admin = new AdminClient(rig.url, rig.adminKey);
  await admin.tenant("kept");
  const { client } = await admin.clientOf("kept", ["read"]);
  await client.expect(200, "GET", "/v1/functions");
  rig.redis.process.kill("SIGSTOP");
  try {
    const away = [503, "dependency_unavailable"] as const;
    await Promise.all([
      ...["nodes", "sandboxes", "queues"].map((what) =>
        admin.refused(...away, "GET", `/admin/v1/${what}`),
      ),
      admin.refused(...away, "DELETE", "/admin/v1/tenants/kept"),
    ]);
    await admin.expect(200, "POST", "/admin/v1/tenants/kept/suspend");
    await client.refused(403, "tenant_suspended", "GET", "/v1/functions");
  } finally {
    rig.redis.process.kill("SIGCONT");
  }
  await rig.worker.beat();
  await admin.expect(204, "DELETE", "/admin/v1/tenants/kept");
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
  const admin = new AdminClient(rig.url, rig.adminKey);
  await admin.refused(503, "dependency_unavailable", "GET", "/admin/v1/tenants");
  const ready = await rig.fetch("/readyz");
  assert.equal(ready.status, 503);
  const { missing } = (await ready.json()) as { missing: string[] };
  assert.ok(missing.includes("postgresql"));
  assert.ok(!missing.includes("redis"));
  assert.equal((await rig.fetch("/healthz")).status, 200);
});
