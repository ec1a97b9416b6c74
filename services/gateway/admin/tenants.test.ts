import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CHANGES_CHANNEL, type Change } from "#contracts/invocation";
import { removeHeartbeat, writeHeartbeat } from "#queue/nodes";
import { Subscriber } from "#queue/pubsub";
import { connectRedis, disconnectRedis } from "#queue/redis";
import { AdminClient, type Json } from "../testkit/admin-client.ts";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { heartbeatOf } from "../testkit/heartbeats.ts";
import { answers } from "../testkit/worker-side.ts";

let rig: GatewayRig;
let admin: AdminClient;
const PATH = "/admin/v1/tenants";

before(async () => {
  rig = await startGatewayRig();
  // Tenants that are not trusted need micro-VMs, and calls go only to nodes that have what they need.
  await rig.worker.beat({ kinds: ["container", "microvm"] });
  admin = new AdminClient(rig.url, rig.adminKey);
});
after(() => rig?.stop());

const FILES = { "index.mjs": "export default {};" };

/** A tenant with a key for everything but administration, and one function. */
async function tenantWithFunction(name: string) {
  // Its code may run in a container, which is what the rig's node offers.
  const id = await admin.tenant(name, "trusted");
  const { client, key } = await admin.clientOf(name, ["invoke", "deploy", "read"]);
  await client.expect(201, "POST", "/v1/functions", { name: "fn", files: FILES });
  const calling = () => fetch(`${rig.url}/f/fn/`, { headers: { authorization: `Bearer ${key}` } });
  return { id, client, key, calling };
}

test("a tenant is created, read by name and by id, changed, and deleted", async () => {
  const made = await admin.send("POST", PATH, { name: "life", tier: "untrusted" });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const { id, etag } = made.body as Json & { id: string; etag: string };
  assert.equal(made.headers.get("location"), `${PATH}/${id}`);
  assert.equal(made.headers.get("etag"), etag);
  assert.match(made.headers.get("cloister-request-id") ?? "", /^req_/);
  for (const address of [id, "life"]) {
    const read = await admin.expect(200, "GET", `${PATH}/${address}`);
    assert.deepEqual(read, made.body);
  }
  assert.deepEqual(
    [made.body.name, made.body.tier, made.body.state],
    ["life", "untrusted", "active"],
  );
  const changed = await admin.send(
    "PATCH",
    `${PATH}/life`,
    { tier: "trusted" },
    { "if-match": etag },
  );
  assert.equal(changed.status, 200, JSON.stringify(changed.body));
  assert.equal(changed.body.tier, "trusted");
  assert.notEqual(changed.headers.get("etag"), etag);
  await admin.expect(204, "DELETE", `${PATH}/${id}`);
  await admin.refused(404, "tenant_not_found", "GET", `${PATH}/${id}`);
  await admin.refused(404, "tenant_not_found", "DELETE", `${PATH}/life`);
  assert.notEqual(await admin.tenant("life"), id, "the name is free again");
});

for (const [what, body, said] of [
  ["no tier", { name: "x" }, /tier/],
  ["no name", { tier: "standard" }, /name/],
  ["an unknown tier", { name: "x", tier: "gold" }, /tier/],
  ["an unknown field", { name: "x", tier: "standard", quota: 1 }, /quota/],
  ["an empty name", { name: "", tier: "standard" }, /name/],
  ["a name that climbs", { name: "../x", tier: "standard" }, /name/],
  ["a name with a control character", { name: "a\u0000b", tier: "standard" }, /name/],
  ["a name of 64 characters", { name: "a".repeat(64), tier: "standard" }, /name/],
  ["a name that looks like an id", { name: `ten_${"0".repeat(26)}`, tier: "standard" }, /name/],
  ["a number for a name", { name: 1, tier: "standard" }, /name/],
  ["a list", [], /json/],
  ["null", null, /json/],
  ["half of JSON", '{"name": "x"', /JSON/],
] as const)
  test(`a tenant that is refused: ${what}`, async () => {
    assert.match(await admin.refused(400, "bad_request", "POST", PATH, body), said);
  });

test("bodies that are no JSON, or too large, are told apart", async () => {
  const type = { "content-type": "text/plain" };
  await admin.refused(415, "unsupported_media_type", "POST", PATH, "{}", type);
  const large = { name: "x".repeat(70_000), tier: "standard" };
  await admin.refused(413, "body_too_large", "POST", PATH, large);
  const pieces = new ReadableStream({
    start(controller) {
      for (let count = 0; count < 100; count++) controller.enqueue(Buffer.alloc(1000, 0x20));
      controller.close();
    },
  });
  const response = await fetch(`${rig.url}${PATH}`, {
    method: "POST",
    headers: { authorization: `Bearer ${rig.adminKey}`, "content-type": "application/json" },
    body: pieces,
    duplex: "half",
  } as RequestInit);
  assert.equal(response.status, 413, "one whose length is not told is counted as it comes");
});

test("of several that take a name at once one gets it", async () => {
  const told = await Promise.all(
    Array.from({ length: 8 }, () => admin.send("POST", PATH, { name: "wanted", tier: "standard" })),
  );
  assert.deepEqual(
    told.map(({ status }) => status).sort(),
    [201, 409, 409, 409, 409, 409, 409, 409],
  );
  const refusal = told.find(({ status }) => status === 409);
  assert.equal(refusal?.body.code, "conflict");
  assert.match(String(refusal?.body.detail), /wanted/);
});

test("changes of what has changed since are refused, and so are those that name no state", async () => {
  await admin.tenant("edited");
  const { etag } = (await admin.expect(200, "GET", `${PATH}/edited`)) as { etag: string };
  const patch = (tag: string | undefined, tier = "trusted") =>
    ["PATCH", `${PATH}/edited`, { tier }, tag === undefined ? {} : { "if-match": tag }] as const;
  await admin.refused(428, "precondition_required", ...patch(undefined));
  for (const malformed of ["edited", '"open', "", '"a" "b"', "W/x"])
    await admin.refused(400, "bad_request", ...patch(malformed));
  await admin.refused(412, "precondition_failed", ...patch(`W/${etag}`));
  await admin.refused(412, "precondition_failed", ...patch('"another"'));
  const told = await Promise.all([
    admin.send(...patch(etag, "trusted")),
    admin.send(...patch(etag, "untrusted")),
  ]);
  assert.deepEqual(told.map(({ status }) => status).sort(), [200, 412]);
  await admin.refused(412, "precondition_failed", ...patch(etag));
  await admin.expect(200, ...patch("*"));
  const { etag: now } = (await admin.expect(200, "GET", `${PATH}/edited`)) as { etag: string };
  await admin.expect(200, ...patch(`"another", ${now}`, "standard"));
  await admin.refused(412, "precondition_failed", "POST", `${PATH}/edited/suspend`, undefined, {
    "if-match": etag,
  });
  await admin.refused(412, "precondition_failed", "DELETE", `${PATH}/edited`, undefined, {
    "if-match": etag,
  });
  await admin.expect(204, "DELETE", `${PATH}/edited`);
  await admin.tenant("edited");
  await admin.refused(412, "precondition_failed", ...patch(etag));
});

test("ten thousand tenants are listed page by page, each once", async () => {
  await rig.db.pool.query(
    `insert into tenants (id, name, tier)
     select 'ten_' || lpad(i::text, 26, '0'), 'many-' || lpad(i::text, 5, '0'), 'untrusted' from generate_series(1, 10000) i`,
  );
  const names: string[] = [];
  let after = "";
  for (;;) {
    const page = (await admin.expect(200, "GET", `${PATH}?limit=1000&tier=untrusted${after}`)) as {
      tenants: { name: string }[];
      next?: string;
    };
    names.push(...page.tenants.map(({ name }) => name));
    if (page.next === undefined) break;
    after = `&after=${page.next}`;
  }
  assert.equal(new Set(names).size, names.length);
  const many = names.filter((name) => name.startsWith("many-"));
  assert.equal(many.length, 10_000);
  assert.deepEqual(many, [...many].sort());
  const first = (await admin.expect(200, "GET", PATH)) as { tenants: unknown[] };
  assert.equal(first.tenants.length, 100, "a page is bounded when no limit is given");
  for (const query of ["limit=0", "limit=1001", "limit=1.5", "limit=x", "after=a%00b", "state=x"])
    await admin.refused(400, "bad_request", "GET", `${PATH}?${query}`);
  await rig.db.pool.query("delete from tenants where name like 'many-%'");
});

test("a suspended tenant's new work is refused by every gateway, what runs is finished, and resuming is all that is needed", async () => {
  const { id, client, key, calling } = await tenantWithFunction("paused");
  const another = await rig.another();
  const elsewhere = new AdminClient(another.url, key);
  await elsewhere.expect(200, "GET", "/v1/functions/fn");
  const begun = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/", async (served) => {
    begun.resolve();
    await finish.promise;
    await answers(200, [], "finished")(served);
  });
  const running = calling();
  await begun.promise;
  rig.worker.behaviours.delete("/");
  const { heard } = await listenFor(id);
  const suspended = await admin.expect(200, "POST", `${PATH}/paused/suspend`);
  assert.equal(suspended.state, "suspended");
  assert.equal((await calling()).status, 403);
  await client.refused(403, "tenant_suspended", "GET", "/v1/functions");
  await heard;
  await elsewhere.refused(403, "tenant_suspended", "GET", "/v1/functions/fn");
  finish.resolve();
  const finished = await running;
  assert.equal(finished.status, 200);
  assert.equal(await finished.text(), "finished");
  const again = await admin.expect(200, "POST", `${PATH}/paused/suspend`);
  assert.equal(again.etag, suspended.etag, "what is so already is no change");
  assert.equal((await admin.expect(200, "POST", `${PATH}/paused/resume`)).state, "active");
  assert.equal((await calling()).status, 200);
  await another.gateway.drain();
});

/** Listens for a change of this tenant. Redis tells gateways first, which have listened for longer. */
async function listenFor(id: string): Promise<{ heard: Promise<void> }> {
  const subscriber = new Subscriber(rig.redis.url);
  const { promise, resolve } = Promise.withResolvers<void>();
  await subscriber.subscribe(CHANGES_CHANNEL, (message) => {
    if ((message as Change).id === id) resolve();
  });
  return { heard: promise.finally(() => subscriber.close()) };
}

test("what runs keeps a tenant from being deleted, until it has ended or is made to", async () => {
  const { id, client, calling } = await tenantWithFunction("doomed");
  const neighbour = await tenantWithFunction("neighbour");
  const digestOf = async (of: AdminClient, name: string) =>
    String((await of.expect(200, "GET", `/v1/functions/${name}`)).digest);
  const shared = await digestOf(neighbour.client, "fn");
  const files = { "index.mjs": "export default { own: true };" };
  await client.expect(201, "POST", "/v1/functions", { name: "own", files });
  const own = await digestOf(client, "own");
  const begun = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/", async (served) => {
    begun.resolve();
    await finish.promise;
    await answers(200)(served);
  });
  const running = calling();
  await begun.promise;
  rig.worker.behaviours.delete("/");
  const refusal = await admin.refused(409, "conflict", "DELETE", `${PATH}/doomed`);
  assert.match(refusal, /1 invocation running/);
  assert.equal((await calling()).status, 200, "the refusal has disturbed nobody");
  await admin.expect(200, "POST", `${PATH}/doomed/suspend`);
  await admin.refused(409, "conflict", "DELETE", `${PATH}/doomed`);
  await admin.refused(400, "bad_request", "DELETE", `${PATH}/doomed?force=yes`);
  finish.resolve();
  await (await running).arrayBuffer();
  await rig.worker.idle();
  await client.refused(403, "tenant_suspended", "GET", "/v1/functions");
  // One that another tenant uses too, and one that is this one's own; both are of long ago.
  await rig.db.pool.query("update bundles set touched_at = now() - interval '2 minutes'");
  const digests = async () =>
    (await rig.db.pool.query("select digest from bundles")).rows.map(({ digest }) => digest);
  const before = await digests();
  assert.ok(before.includes(own) && before.includes(shared));
  await admin.expect(204, "DELETE", `${PATH}/doomed`);
  await client.refused(401, "unauthenticated", "GET", "/v1/functions");
  const after = await digests();
  assert.ok(!after.includes(own) && after.includes(shared));
  const { rows } = await rig.db.pool.query(
    `select (select count(*)::int from api_keys where tenant_id = $1) as keys,
            (select count(*)::int from functions where tenant_id = $1) as functions,
            (select count(*)::int from versions where function_id not in (select id from functions)) as versions`,
    [id],
  );
  assert.deepEqual(rows, [{ keys: 0, functions: 0, versions: 0 }]);
});

test("force deletes a tenant although something of it runs, and tells the nodes", async () => {
  const { id, calling } = await tenantWithFunction("forced");
  const begun = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/", async ({ reply }) => {
    begun.resolve();
    await told.promise;
    reply.error({ code: "sandbox_failed", message: "The sandbox was ended before it answered" });
  });
  const told = Promise.withResolvers<void>();
  const subscriber = new Subscriber(rig.redis.url);
  await subscriber.subscribe(CHANGES_CHANNEL, (message) => {
    const change = message as Change;
    if (change.kind === "tenant" && change.id === id && change.deleted) told.resolve();
  });
  const running = calling();
  await begun.promise;
  rig.worker.behaviours.delete("/");
  await admin.expect(204, "DELETE", `${PATH}/forced?force=true`);
  await told.promise;
  assert.equal((await running).status, 502);
  await subscriber.close();
});

test("a node that does not answer keeps a tenant from being deleted without force", async () => {
  await admin.tenant("unsure");
  const connection = connectRedis(rig.redis.url, "request");
  await writeHeartbeat(connection, heartbeatOf("node_silent"));
  const detail = await admin.refused(409, "conflict", "DELETE", `${PATH}/unsure`);
  assert.match(detail, /node_silent/);
  assert.equal((await admin.expect(200, "GET", `${PATH}/unsure`)).state, "active");
  await admin.expect(204, "DELETE", `${PATH}/unsure?force=true`);
  await removeHeartbeat(connection, "node_silent");
  await disconnectRedis(connection);
});

test("the operator's own tenant cannot be suspended or deleted", async () => {
  const suspend = await admin.refused(409, "conflict", "POST", `${PATH}/default/suspend`);
  assert.match(suspend, /operator's own tenant/);
  await admin.refused(409, "conflict", "DELETE", `${PATH}/default?force=true`);
  await admin.expect(200, "GET", `${PATH}/default`);
});
