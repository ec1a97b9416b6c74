import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { parseKey, readKey } from "#db/keys";
import { AdminClient, type Json } from "../testkit/admin-client.ts";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";

let rig: GatewayRig;
let admin: AdminClient;
const PATH = "/admin/v1/tenants/acme/keys";
const HOUR_MS = 3_600_000;

before(async () => {
  rig = await startGatewayRig();
  admin = new AdminClient(rig.url, rig.adminKey);
  await admin.tenant("acme");
  await admin.tenant("other");
});
after(() => rig?.stop());

const using = (key: unknown): AdminClient => new AdminClient(rig.url, String(key));
const works = (key: unknown) => using(key).expect(200, "GET", "/v1/functions");
const refuses = (key: unknown) =>
  using(key).refused(401, "unauthenticated", "GET", "/v1/functions");

const create = (more: Json = {}) =>
  admin.expect(201, "POST", PATH, { name: "a key", scopes: ["read"], ...more });

/** The state that If-Match is to name. */
async function tagOf(id: unknown): Promise<{ "if-match": string }> {
  return { "if-match": String((await admin.expect(200, "GET", `${PATH}/${id}`)).etag) };
}

test("a key is shown once, and works with its scopes until it is revoked", async () => {
  const made = await admin.send("POST", PATH, { name: "CI – deploys", scopes: ["read", "deploy"] });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  assert.equal(made.headers.get("cache-control"), "no-store");
  const { id, key } = made.body;
  assert.equal(parseKey(String(key))?.id, id);
  assert.deepEqual(
    [made.body.name, made.body.scopes, made.body.state],
    ["CI – deploys", ["read", "deploy"], "active"],
  );
  await works(key);
  await using(key).refused(403, "forbidden", "GET", "/admin/v1/tenants");
  const listed = (await admin.expect(200, "GET", PATH)) as { keys: Json[] };
  const shown = listed.keys.find((one) => one.id === id);
  assert.equal(shown?.name, "CI – deploys");
  const secret = parseKey(String(key))?.secret ?? "";
  assert.ok(!JSON.stringify(listed).includes(secret));
  assert.ok(!JSON.stringify(await admin.expect(200, "GET", "/admin/v1/audit")).includes(secret));
  await admin.expect(204, "DELETE", `${PATH}/${id}`);
  assert.match(await refuses(key), /revoked/);
  await admin.expect(204, "DELETE", `${PATH}/${id}`);
  const revoked = await admin.expect(200, "GET", `${PATH}/${id}`);
  assert.equal(revoked.state, "revoked");
  assert.ok(revoked.revokedAt);
  const tag = await tagOf(id);
  await admin.refused(409, "conflict", "PATCH", `${PATH}/${id}`, { name: "again" }, tag);
  await admin.refused(409, "conflict", "POST", `${PATH}/${id}/rotate`, { graceMs: 0 }, tag);
});

const body = { name: "x", scopes: ["read"] };
for (const [what, wrong] of [
  ["no name", { scopes: ["read"] }],
  ["an empty name", { ...body, name: "" }],
  ["a name over two lines", { ...body, name: "a\nb" }],
  ["a name of 101 characters", { ...body, name: "x".repeat(101) }],
  ["no scopes", { name: "x" }],
  ["an empty list of scopes", { ...body, scopes: [] }],
  ["an unknown scope", { ...body, scopes: ["root"] }],
  ["a scope twice", { ...body, scopes: ["read", "read"] }],
  ["a scope that is no list", { ...body, scopes: "read" }],
  ["an unknown field", { ...body, expires: "2030-01-01T00:00:00Z" }],
  ["an expiry in the past", { ...body, expiresAt: "2020-01-01T00:00:00Z" }],
  ["an expiry now", { ...body, expiresAt: Date.now() }],
  ["a negative expiry", { ...body, expiresAt: -1 }],
  ["a fraction of a ms", { ...body, expiresAt: Date.now() + HOUR_MS + 0.5 }],
  ["an expiry after all years", { ...body, expiresAt: 8.64e15 }],
  ["an expiry beyond numbers", { ...body, expiresAt: 1e300 }],
  ["an expiry without a zone", { ...body, expiresAt: "2030-01-01T00:00:00" }],
  ["a day that is none", { ...body, expiresAt: "2030-02-30T00:00:00Z" }],
] as const)
  test(`a key that is refused: ${what}`, async () => {
    await admin.refused(400, "bad_request", "POST", PATH, wrong);
  });

test("a key with an expiry works until then, by the clock", async () => {
  const expiresAt = new Date(Date.now() + HOUR_MS).toISOString();
  const { id, key } = await create({ expiresAt });
  await works(key);
  const inMs = await create({ expiresAt: Date.now() + HOUR_MS });
  assert.ok(Math.abs(new Date(String(inMs.expiresAt)).getTime() - Date.now() - HOUR_MS) < 60_000);
  // The clock has gone on: to the gateway that is a row whose expiry is over.
  await rig.db.pool.query(
    "update api_keys set expires_at = now() - interval '1 ms' where id = $1",
    [id],
  );
  const tag = await tagOf(id);
  assert.equal((await admin.expect(200, "GET", `${PATH}/${id}`)).state, "expired");
  await admin.refused(409, "conflict", "POST", `${PATH}/${id}/rotate`, { graceMs: 0 }, tag);
  await admin.expect(200, "PATCH", `${PATH}/${id}`, { name: "expired" }, tag);
  assert.match(await refuses(key), /expired/);
  const later = { expiresAt: null };
  await admin.expect(200, "PATCH", `${PATH}/${id}`, later, await tagOf(id));
  await works(key);
});

test("a rotation gives a new secret, and the old one lives on as long as was said", async () => {
  const { id, key: first } = await create();
  await works(first);
  const rotate = async (graceMs: unknown) =>
    admin.expect(200, "POST", `${PATH}/${id}/rotate`, { graceMs }, await tagOf(id));
  const { key: second, previousUntil } = await rotate(HOUR_MS);
  assert.ok(new Date(String(previousUntil)).getTime() > Date.now());
  assert.equal(parseKey(String(second))?.id, id);
  await works(first);
  await works(second);
  const { key: third } = await rotate(HOUR_MS);
  await refuses(first);
  await works(second);
  await works(third);
  // The grace is over.
  await rig.db.pool.query(
    "update api_keys set previous_until = now() - interval '1 ms' where id = $1",
    [id],
  );
  await admin.expect(200, "PATCH", `${PATH}/${id}`, { name: "late" }, await tagOf(id));
  assert.match(await refuses(second), /old secret/);
  await works(third);
  const { key: fourth } = await rotate(0);
  await refuses(third);
  await works(fourth);
  await admin.expect(204, "DELETE", `${PATH}/${id}`);
  await refuses(fourth);
});

for (const [what, grace] of [
  ["negative", -1],
  ["over a day", 24 * HOUR_MS + 1],
  ["a fraction", 0.5],
  ["missing", undefined],
  ["text", "1h"],
  ["null", null],
] as const)
  test(`a grace that is refused: ${what}`, async () => {
    const { id } = await create();
    const path = `${PATH}/${id}/rotate`;
    await admin.refused(400, "bad_request", "POST", path, { graceMs: grace }, await tagOf(id));
    await admin.refused(400, "bad_request", "POST", path, { graceMs: 0, x: 1 }, await tagOf(id));
  });

test("of two who rotate at once one gets a secret that works, and the other knows", async () => {
  const { id } = await create();
  const path = `${PATH}/${id}/rotate`;
  await admin.refused(428, "precondition_required", "POST", path, { graceMs: 0 });
  const tag = await tagOf(id);
  const told = await Promise.all([1, 2].map(() => admin.send("POST", path, { graceMs: 0 }, tag)));
  assert.deepEqual(told.map(({ status }) => status).sort(), [200, 412]);
  await works(told.find(({ status }) => status === 200)?.body.key);
  // A request that is sent again is another one.
  await admin.refused(412, "precondition_failed", "POST", path, { graceMs: 0 }, tag);
});

test("name, scopes and expiry are changed for those who have seen what they change", async () => {
  const { id, key, etag } = await create();
  const path = `${PATH}/${id}`;
  await admin.refused(428, "precondition_required", "PATCH", path, { name: "x" });
  const tag = { "if-match": String(etag) };
  for (const wrong of [{}, { secret: "x" }, { scopes: [] }, { expiresAt: 1 }, { name: null }])
    await admin.refused(400, "bad_request", "PATCH", path, wrong, tag);
  const change = { name: "renamed", scopes: ["invoke"] };
  const changed = await admin.expect(200, "PATCH", path, change, tag);
  assert.deepEqual([changed.name, changed.scopes], ["renamed", ["invoke"]]);
  await using(key).refused(403, "forbidden", "GET", "/v1/functions");
  await admin.refused(412, "precondition_failed", "PATCH", path, change, tag);
  await admin.refused(412, "precondition_failed", "DELETE", path, undefined, tag);
});

test("a tenant's keys are not those of another, whoever asks", async () => {
  const { id } = await create();
  const foreign = `/admin/v1/tenants/other/keys/${id}`;
  const any = { "if-match": "*" };
  await admin.refused(404, "key_not_found", "GET", foreign);
  await admin.refused(404, "key_not_found", "DELETE", foreign);
  await admin.refused(404, "key_not_found", "PATCH", foreign, { name: "mine" }, any);
  await admin.refused(404, "key_not_found", "POST", `${foreign}/rotate`, { graceMs: 0 }, any);
  const { client } = await admin.clientOf("other", ["admin"]);
  await client.refused(404, "tenant_not_found", "DELETE", `${PATH}/${id}`);
  await client.refused(404, "key_not_found", "DELETE", foreign);
  for (const none of ["key_x", `key_${"0".repeat(26)}`, "a%00b", "%F0%9F%98%80"])
    await admin.refused(404, "key_not_found", "GET", `${PATH}/${none}`);
  assert.equal((await admin.expect(200, "GET", `${PATH}/${id}`)).state, "active");
});

test("a key that was taken from a tenant with its state goes on as that state says", async () => {
  await admin.tenant("short-lived");
  const { client, id } = await admin.clientOf("short-lived", ["read"]);
  await client.expect(200, "GET", "/v1/functions");
  await admin.expect(200, "POST", "/admin/v1/tenants/short-lived/suspend");
  await client.refused(403, "tenant_suspended", "GET", "/v1/functions");
  const more = { name: "while suspended", scopes: ["read"] };
  const made = await admin.expect(201, "POST", "/admin/v1/tenants/short-lived/keys", more);
  await using(made.key).refused(403, "tenant_suspended", "GET", "/v1/functions");
  await admin.expect(204, "DELETE", "/admin/v1/tenants/short-lived");
  await client.refused(401, "unauthenticated", "GET", "/v1/functions");
  assert.equal(await readKey(rig.db, id), undefined);
  await admin.refused(404, "tenant_not_found", "POST", "/admin/v1/tenants/short-lived/keys", more);
});

test("keys are listed page by page in order of their making", async () => {
  await admin.tenant("paged");
  const ids: string[] = [];
  for (let count = 0; count < 5; count++) ids.push((await admin.clientOf("paged", ["read"])).id);
  const path = "/admin/v1/tenants/paged/keys";
  const list = async (query: string) =>
    (await admin.expect(200, "GET", `${path}?${query}`)) as { keys: Json[]; next?: string };
  const first = await list("limit=3");
  const rest = await list(`limit=3&after=${first.next}`);
  assert.deepEqual(
    [...first.keys, ...rest.keys].map(({ id }) => id),
    [...ids].sort(),
  );
  assert.equal(rest.next, undefined);
  for (const query of ["after=x", "after=a%00b", "limit=0", "limit=1e9"])
    await admin.refused(400, "bad_request", "GET", `${path}?${query}`);
});

test("a tenant has at most a thousand keys that can be used", async () => {
  const tenant = await admin.tenant("collector");
  await rig.db.pool.query(
    `insert into api_keys (id, tenant_id, name, secret_hash, scopes)
     select 'key_' || lpad(i::text, 26, '0'), $1, 'one of many', sha256('x'), '{read}' from generate_series(1, 1000) i`,
    [tenant],
  );
  const path = "/admin/v1/tenants/collector/keys";
  assert.match(await admin.refused(409, "conflict", "POST", path, body), /1000 keys/);
  await admin.expect(204, "DELETE", `${path}/key_${"1".padStart(26, "0")}`);
  await admin.expect(201, "POST", path, body);
});

test("last use is written in batches, and a clock that was set back takes nothing away", async () => {
  const another = await rig.another();
  const { id, key } = await create();
  const beganMs = Date.now();
  await new AdminClient(another.url, String(key)).expect(200, "GET", "/v1/functions");
  assert.equal((await admin.expect(200, "GET", `${PATH}/${id}`)).lastUsedAt, undefined);
  // A gateway that ends writes what it has noted.
  await another.gateway.drain();
  const used = await admin.expect(200, "GET", `${PATH}/${id}`);
  assert.ok(new Date(String(used.lastUsedAt)).getTime() >= beganMs);
  assert.deepEqual(await tagOf(id), { "if-match": used.etag });
});

test("the operator cannot lock himself out", async () => {
  const path = "/admin/v1/tenants/default/keys";
  const own = `${path}/${parseKey(rig.adminKey)?.id}`;
  assert.match(await admin.refused(409, "conflict", "DELETE", own), /last admin key/);
  const any = { "if-match": "*" };
  await admin.refused(409, "conflict", "PATCH", own, { scopes: ["read"] }, any);
  const { client, id } = await admin.clientOf("default", ["admin"]);
  const both = await Promise.all([
    admin.send("DELETE", own),
    client.send("DELETE", `${path}/${id}`),
  ]);
  // Either may have been refused as the last, or as a key that was revoked a moment ago; never are both gone.
  assert.equal(both.filter(({ status }) => status === 204).length, 1, JSON.stringify(both));
});
