import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { parseKey } from "#db/keys";
import { ERRORS, type ErrorCode } from "#errors/catalogue";
import { AdminClient, type Json } from "../testkit/admin-client.ts";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";

let rig: GatewayRig;
let admin: AdminClient;
const PATH = "/admin/v1/tenants";

before(async () => {
  rig = await startGatewayRig();
  admin = new AdminClient(rig.url, rig.adminKey);
});
after(() => rig?.stop());

test("an admin key of another tenant governs that tenant's keys, and nothing else", async () => {
  const own = await admin.tenant("partner");
  await admin.tenant("stranger");
  const { client } = await admin.clientOf("partner", ["admin"]);
  assert.equal((await client.expect(200, "GET", `${PATH}/partner`)).id, own);
  await client.expect(201, "POST", `${PATH}/partner/keys`, { name: "more", scopes: ["invoke"] });
  const theirs = (await client.expect(200, "GET", "/admin/v1/audit")) as { entries: Json[] };
  assert.ok(theirs.entries.length >= 3);
  assert.ok(theirs.entries.every(({ tenantId }) => tenantId === own));
  for (const request of [
    ["GET", PATH],
    ["POST", PATH, { name: "mine", tier: "trusted" }],
    ["PATCH", `${PATH}/partner`, { tier: "trusted" }, { "if-match": "*" }],
    ["POST", `${PATH}/partner/resume`],
    ["DELETE", `${PATH}/partner`],
    ["GET", "/admin/v1/nodes"],
    ["GET", "/admin/v1/sandboxes"],
    ["GET", "/admin/v1/queues"],
  ] as Parameters<AdminClient["send"]>[])
    assert.match(await client.refused(403, "forbidden", ...request), /operator/);
  for (const request of [
    ["GET", `${PATH}/stranger`],
    ["GET", `${PATH}/default/keys`],
    ["GET", `${PATH}/nobody`],
    ["POST", `${PATH}/stranger/keys`, { name: "in", scopes: ["admin"] }],
    ["GET", "/admin/v1/audit?tenant=stranger"],
  ] as Parameters<AdminClient["send"]>[])
    await client.refused(404, "tenant_not_found", ...request);
  const user = new AdminClient(rig.url, rig.key);
  assert.match(await user.refused(403, "forbidden", "GET", PATH), /scope admin/);
  await new AdminClient(rig.url, "cl_x").refused(401, "unauthenticated", "GET", PATH);
});

test("whoever signs in is told what the key may do", async () => {
  const self = await admin.expect(200, "GET", "/admin/v1/self");
  assert.equal(self.operator, true);
  assert.equal((self.tenant as Json).name, "default");
  const id = await admin.tenant("signed-in");
  const { client, id: keyId } = await admin.clientOf("signed-in", ["admin", "read"]);
  assert.deepEqual(await client.expect(200, "GET", "/admin/v1/self"), {
    ...{ keyId, operator: false, scopes: ["admin", "read"] },
    tenant: { id, name: "signed-in" },
  });
  const { client: reader } = await admin.clientOf("signed-in", ["read"]);
  await reader.refused(403, "forbidden", "GET", "/admin/v1/self");
});

test("the document has each address with its refusals", async () => {
  const document = (await admin.expect(200, "GET", "/openapi.json")) as {
    paths: Record<string, Record<string, { responses: Record<string, { description: string }> }>>;
  };
  const tenant = `${PATH}/{tenant}`;
  const key = `${tenant}/keys/{key}`;
  const change = "bad_request precondition_required precondition_failed body_too_large";
  for (const [method, path, codes] of [
    ["get", PATH, "bad_request"],
    ["post", PATH, "bad_request conflict unsupported_media_type body_too_large"],
    ["get", tenant, "tenant_not_found"],
    ["patch", tenant, `${change} tenant_not_found`],
    ["delete", tenant, "bad_request tenant_not_found conflict precondition_failed"],
    ["post", `${tenant}/suspend`, "tenant_not_found conflict precondition_failed"],
    ["post", `${tenant}/resume`, "tenant_not_found precondition_failed"],
    ["get", `${tenant}/keys`, "bad_request tenant_not_found"],
    ["post", `${tenant}/keys`, "bad_request tenant_not_found conflict body_too_large"],
    ["get", key, "tenant_not_found key_not_found"],
    ["patch", key, `${change} tenant_not_found key_not_found conflict`],
    ["post", `${key}/rotate`, `${change} tenant_not_found key_not_found conflict`],
    ["delete", key, "tenant_not_found key_not_found conflict precondition_failed"],
    ["get", "/admin/v1/audit", "bad_request tenant_not_found"],
    ["get", "/admin/v1/nodes", "dependency_unavailable"],
    ["get", "/admin/v1/sandboxes", "bad_request tenant_not_found"],
    ["get", "/admin/v1/queues", "dependency_unavailable"],
  ] as const) {
    const responses = document.paths[path]?.[method]?.responses;
    assert.ok(responses, `${method} ${path}`);
    for (const code of [...codes.split(" "), "unauthenticated", "forbidden", "tenant_suspended"]) {
      const { status } = ERRORS[code as ErrorCode];
      assert.match(
        responses[status]?.description ?? "",
        new RegExp(`\\b${code}:`),
        `${method} ${path}`,
      );
    }
  }
});

test("what was changed is written down: who, what, from what to what, when, by which request", async () => {
  const beganMs = Date.now();
  const id = await admin.tenant("watched", "standard");
  const tag = { "if-match": "*", "user-agent": "a test" };
  const changed = await admin.send("PATCH", `${PATH}/watched`, { tier: "trusted" }, tag);
  await admin.expect(200, "PATCH", `${PATH}/watched`, { tier: "trusted" }, tag);
  await admin.refused(409, "conflict", "POST", PATH, { name: "watched", tier: "standard" });
  await admin.expect(204, "DELETE", `${PATH}/watched`);
  const audit = async (query: string) =>
    (await admin.expect(200, "GET", `/admin/v1/audit?${query}`)) as {
      entries: (Json & { id: number; request: Json; at: string })[];
      next?: number;
    };
  const { entries } = await audit(`tenant=${id}`);
  assert.deepEqual(
    entries.map(({ action }) => action),
    ["tenant.delete", "tenant.suspend", "tenant.change", "tenant.create"],
    "newest first; what changed nothing or was refused is not there",
  );
  const change = entries[2];
  assert.deepEqual(change?.before, { name: "watched", tier: "standard", state: "active" });
  assert.deepEqual(change?.after, { name: "watched", tier: "trusted", state: "active" });
  assert.equal(change?.subject, id);
  assert.equal(change?.keyId, parseKey(rig.adminKey)?.id);
  assert.deepEqual(change?.request, {
    id: changed.headers.get("cloister-request-id"),
    method: "PATCH",
    path: `${PATH}/watched`,
    address: "127.0.0.1",
    userAgent: "a test",
  });
  assert.ok(new Date(change?.at ?? "").getTime() >= beganMs - 1000);
  const page = await audit(`tenant=${id}&limit=3`);
  assert.equal(page.next, page.entries[2]?.id);
  assert.deepEqual(
    (await audit(`tenant=${id}&before=${page.next}`)).entries.map(({ action }) => action),
    ["tenant.create"],
  );
  assert.equal((await audit(`tenant=${id}&action=tenant.change`)).entries.length, 1);
  assert.equal((await audit(`tenant=${id}&key=${parseKey(rig.key)?.id}`)).entries.length, 0);
  const since = new Date(beganMs - 1000).toISOString();
  assert.equal((await audit(`tenant=${id}&since=${since}`)).entries.length, 4);
  assert.equal((await audit(`tenant=${id}&until=${since}`)).entries.length, 0);
  for (const query of ["limit=0", "before=-1", "action=a b", "since=yesterday"])
    await admin.refused(400, "bad_request", "GET", `/admin/v1/audit?${query}`);
  await admin.refused(404, "tenant_not_found", "GET", "/admin/v1/audit?tenant=watched");
  await assert.rejects(rig.db.pool.query("delete from audit_log"), /only added to/);
  await assert.rejects(rig.db.pool.query("update audit_log set action = 'x'"), /only added to/);
});

test("nodes and queues are told as they are", async () => {
  await rig.worker.beat({ memoryMb: 777 });
  const { nodes } = (await admin.expect(200, "GET", "/admin/v1/nodes")) as { nodes: Json[] };
  assert.equal(nodes.length, 1);
  assert.equal(nodes[0]?.memoryMb, 777);
  assert.ok(Number(nodes[0]?.ageMs) >= 0);
  const listed = await admin.expect(200, "GET", "/admin/v1/sandboxes");
  assert.deepEqual(listed, { sandboxes: [], total: 0, running: 0, silent: [] });
  const { queues } = (await admin.expect(200, "GET", "/admin/v1/queues")) as { queues: Json[] };
  assert.ok(queues.length > 0);
  for (const { name, ...state } of queues)
    assert.deepEqual(state, { waiting: 0, active: 0 }, String(name));
});
