import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AdminClient } from "../../testkit/admin-client.ts";
import { type GatewayRig, startGatewayRig } from "../../testkit/gateway-rig.ts";
import { UiClient } from "../../testkit/ui-client.ts";

let rig: GatewayRig;
let admin: AdminClient;

before(async () => {
  rig = await startGatewayRig();
  admin = new AdminClient(rig.url, rig.adminKey);
  for (const name of ["acme", "other"]) await admin.tenant(name);
});
after(() => rig?.stop());

async function signedIn(key: string): Promise<UiClient> {
  const ui = new UiClient(rig.url);
  const told = await ui.signIn(key);
  assert.equal(told.status, 303, told.text);
  assert.equal(told.headers.get("location"), "/ui");
  return ui;
}

test("a page asks for a key first, and leads on to where one wanted to go", async () => {
  const ui = new UiClient(rig.url);
  for (const path of ["/ui", "/ui/tenants", "/ui/tenants/acme", "/ui/nowhere"]) {
    const told = await ui.send(path);
    assert.equal(told.status, 401, path);
    assert.match(told.text, /name="key"/);
    assert.match(told.text, new RegExp(`name="next" value="${path}"`));
  }
  const told = await ui.signIn(rig.adminKey, "/ui/tenants?tier=trusted");
  assert.equal(told.headers.get("location"), "/ui/tenants?tier=trusted");
  const [cookie = ""] = told.headers.getSetCookie();
  assert.match(cookie, /^cloister_ui=[\w-]+; Path=\/ui; HttpOnly; SameSite=Strict$/);
  assert.ok(!cookie.includes(rig.adminKey));
  assert.match((await ui.send("/ui")).text, /<h1>.*Overview/);
  for (const next of [
    "https://evil.example",
    "//evil.example",
    "/ui//evil",
    "/docs",
    "/ui/sign-out",
  ]) {
    const led = await new UiClient(rig.url).signIn(rig.adminKey, next);
    assert.ok(["/ui", "/ui//evil"].includes(led.headers.get("location") ?? ""), next);
  }
});

test("behind https the cookie is for https only", async () => {
  const { gateway, url } = await rig.another({ publicUrl: "https://cloister.example" });
  try {
    const ui = new UiClient(url);
    const told = await ui.post(
      "/ui/sign-in",
      { key: rig.adminKey, next: "/ui" },
      { origin: "https://cloister.example" },
    );
    assert.match(told.headers.getSetCookie()[0] ?? "", /; Secure/);
    const proxied = await new UiClient(rig.url).post(
      "/ui/sign-in",
      { key: rig.adminKey, next: "/ui" },
      { origin: rig.url, "x-forwarded-proto": "https" },
    );
    assert.match(proxied.headers.getSetCookie()[0] ?? "", /; Secure/);
  } finally {
    await gateway.drain();
  }
});

test("every page has a strict policy, is kept by nobody, and its files are kept for ever", async () => {
  const ui = await signedIn(rig.adminKey);
  const { headers, text } = await ui.send("/ui");
  const policy = headers.get("content-security-policy") ?? "";
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|\*|http/);
  assert.equal(headers.get("cache-control"), "no-store");
  assert.doesNotMatch(text, /<script(?![^>]* src=)|<style| style=| on\w+=/);
  const files = [...text.matchAll(/(?:href|src)="(\/ui\/assets\/[^"]+)"/g)].map(([, path]) => path);
  assert.ok(files.length >= 2, text);
  for (const path of files) {
    const file = await ui.send(String(path));
    assert.equal(file.status, 200);
    assert.match(file.headers.get("cache-control") ?? "", /immutable/);
  }
  assert.equal((await ui.send("/ui/assets/style-0000000000000000.css")).status, 404);
  assert.equal((await ui.send("/ui/nowhere")).status, 404);
});

test("keys that are wrong, revoked, of a suspended tenant or without a fitting scope are told apart", async () => {
  const ui = new UiClient(rig.url);
  const says = async (key: string, status: number, words: RegExp) => {
    const told = await ui.signIn(key);
    assert.equal(told.status, status, key);
    assert.match(told.text, words);
    assert.equal(ui.cookie, "");
  };
  await says("", 400, /A key is needed/);
  await says("<script>alert(1)</script>", 401, /The key is not valid/);
  await says(
    `${rig.adminKey.slice(0, -1)}${rig.adminKey.endsWith("A") ? "B" : "A"}`,
    401,
    /not valid/,
  );
  const { id, key } = await admin.clientOf("acme", ["read"]);
  await admin.expect(204, "DELETE", `/admin/v1/tenants/acme/keys/${id}`);
  await says(key, 401, /The key was revoked/);
  const old = await admin.clientOf("acme", ["read"]);
  await rig.db.pool.query("update api_keys set expires_at = now() - interval '1 s' where id = $1", [
    old.id,
  ]);
  await says(old.key, 401, /The key has expired/);
  const { key: caller } = await admin.clientOf("acme", ["invoke"]);
  await says(caller, 403, /needs the scope read or admin/);
  await admin.tenant("resting");
  const { key: resting } = await admin.clientOf("resting", ["read"]);
  await admin.expect(200, "POST", "/admin/v1/tenants/resting/suspend");
  await says(resting, 403, /suspended/);
});

test("a revoked key and a suspended tenant end a session", async () => {
  const { id, key } = await admin.clientOf("acme", ["read"]);
  const ui = await signedIn(key);
  assert.equal((await ui.send("/ui")).status, 200);
  await admin.expect(204, "DELETE", `/admin/v1/tenants/acme/keys/${id}`);
  const told = await ui.send("/ui");
  assert.equal(told.status, 401);
  assert.match(told.text, /The key was revoked\. You were signed out/);
  assert.equal(ui.cookie, "");
});

test("signing out ends a session", async () => {
  const ui = await signedIn(rig.adminKey);
  const told = await ui.post("/ui/sign-out", {});
  assert.equal(told.status, 303);
  assert.equal(ui.cookie, "");
  assert.equal((await ui.send("/ui")).status, 401);
});

test("after ten wrong keys an address has to wait", async () => {
  const { gateway, url } = await rig.another();
  try {
    const ui = new UiClient(url);
    for (let n = 0; n < 10; n++) assert.equal((await ui.signIn("cl_wrong")).status, 401);
    const told = await ui.signIn(rig.adminKey);
    assert.equal(told.status, 429);
    assert.ok(Number(told.headers.get("retry-after")) > 0);
    assert.match(told.text, /Too many wrong keys/);
  } finally {
    await gateway.drain();
  }
});

test("a form of another site, or of none, changes nothing", async () => {
  const ui = await signedIn(rig.adminKey);
  const fields = { name: "forged", tier: "trusted" };
  for (const headers of [
    {},
    { origin: "https://evil.example" },
    { origin: "null" },
    { origin: "https://evil.example", "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "same-site" },
  ] as Record<string, string>[]) {
    const told = await ui.post("/ui/tenants", fields, headers);
    assert.equal(told.status, 403, JSON.stringify(headers));
    assert.match(told.text, /did not come from a page/);
  }
  const json = await ui.send("/ui/tenants", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(fields),
  });
  assert.equal(json.status, 415);
  await admin.refused(404, "tenant_not_found", "GET", "/admin/v1/tenants/forged");
});

test("a key without admin, and an admin of another tenant, find no tenant but their own", async () => {
  const reader = await signedIn((await admin.clientOf("acme", ["read"])).key);
  const overview = await reader.send("/ui");
  assert.match(overview.text, /acme/);
  assert.doesNotMatch(overview.text, /href="\/ui\/tenants"|\/ui\/nodes/);
  for (const path of [
    "/ui/tenants",
    "/ui/tenants/acme",
    "/ui/tenants/other",
    "/ui/tenants/acme/quota",
  ])
    assert.equal((await reader.send(path)).status, 403, path);
  const owner = await signedIn((await admin.clientOf("acme", ["admin"])).key);
  assert.equal((await owner.send("/ui/tenants/acme")).status, 200);
  assert.equal((await owner.send("/ui/tenants/other")).status, 404);
  assert.equal((await owner.send("/ui/tenants/other/keys/new")).status, 404);
  for (const path of ["/ui/tenants", "/ui/tenants/acme/quota", "/ui/tenants/acme/delete"])
    assert.equal((await owner.send(path)).status, 403, path);
  for (const path of [
    "/ui/tenants/acme/quota",
    "/ui/tenants/acme/suspend",
    "/ui/tenants/acme/tier",
  ])
    assert.equal((await owner.post(path, {})).status, 403, path);
  const made = await owner.post("/ui/tenants/acme/keys", { name: "mine", scopes: "read" });
  assert.equal(made.status, 200);
  assert.match(made.text, /value="cl_[^"]+"/);
  const foreign = await owner.post("/ui/tenants/other/keys", { name: "theirs", scopes: "admin" });
  assert.equal(foreign.status, 404);
});

test("tenants are found by a part of their name, page by page", async () => {
  const ui = await signedIn(rig.adminKey);
  for (let n = 0; n < 60; n++) await admin.tenant(`many-${String(n).padStart(2, "0")}`);
  const rows = (text: string) =>
    [...text.matchAll(/<bdi class="name">(many-\d+)<\/bdi>/g)].map(([, name]) => name);
  const first = await ui.send("/ui/tenants?search=MANY-");
  assert.equal(rows(first.text).length, 50);
  const next = /rel="next" href="([^"]+)"/.exec(first.text)?.[1]?.replaceAll("&amp;", "&");
  const second = await ui.send(String(next));
  assert.deepEqual(rows(second.text)[0], "many-50");
  assert.equal(rows(second.text).length, 10);
  assert.doesNotMatch(second.text, /rel="next"/);
  for (const search of ["%25", "_", "'", "%00", "<script>", "many-99"]) {
    const told = await ui.send(`/ui/tenants?search=${search}`);
    assert.equal(told.status, 200, search);
    assert.deepEqual(rows(told.text), [], search);
    assert.doesNotMatch(told.text, /<script>/);
  }
});

test("of two who change the same thing, the second is told, and sees what holds now", async () => {
  const ui = await signedIn(rig.adminKey);
  const id = await admin.tenant("contested");
  const at = `/ui/tenants/${id}`;
  const [one, two] = [await ui.etag(`${at}/quota`), await ui.etag(`${at}/quota`)];
  assert.equal((await ui.post(`${at}/quota`, { etag: one, concurrency: "7" })).status, 303);
  const late = await ui.post(`${at}/quota`, { etag: two, concurrency: "9" });
  assert.equal(late.status, 412);
  assert.match(late.text, /Somebody changed this/);
  assert.match(late.text, /name="concurrency"[^>]* value="7"/);
  const quota = await admin.expect(200, "GET", `/admin/v1/tenants/${id}/quota`);
  assert.equal(quota.concurrency, 7);
  assert.equal((await ui.post(`${at}/quota`, { concurrency: "9" })).status, 428);

  const tag = await ui.etag(at);
  assert.equal((await ui.post(`${at}/suspend`, { etag: tag })).status, 303);
  for (const change of ["resume", "tier", "delete"]) {
    const told = await ui.post(`${at}/${change}`, { etag: tag, tier: "trusted" });
    assert.equal(told.status, 412, change);
  }
  assert.equal(
    (await ui.post(`${at}/delete`, { etag: await ui.etag(`${at}/delete`) })).status,
    303,
  );
  assert.equal((await ui.send(at)).status, 404);
});

test("what is wrong with a quota is said beside its field, and nothing is saved", async () => {
  const ui = await signedIn(rig.adminKey);
  const at = `/ui/tenants/${await admin.tenant("careful")}/quota`;
  const etag = await ui.etag(at);
  const wrong: Record<string, string> = {
    concurrency: "-1",
    memoryMb: "32",
    functions: "1.5",
    requestsPerSecond: "1,5",
    timeoutMs: "1e9",
    bundleBytes: '"><script>alert(1)</script>',
    paths: "moon",
  };
  const told = await ui.post(at, { etag, ...wrong });
  assert.equal(told.status, 400);
  for (const field of Object.keys(wrong))
    assert.match(told.text, new RegExp(`id="f-${field}-error"`));
  assert.doesNotMatch(told.text, /<script>/);
  assert.match(told.text, /Calls at once: at least 0/);
  assert.match(told.text, /Functions: a whole number/);
  const contrary = await ui.post(at, { etag, paths: "container", minimumIsolation: "microvm" });
  assert.equal(contrary.status, 400);
  assert.deepEqual((await admin.expect(200, "GET", "/admin/v1/tenants/careful/quota")).own, {});
  const right = {
    concurrency: "unlimited",
    burst: "1 000",
    paths: "container,microvm",
    memoryMb: "",
  };
  assert.equal((await ui.post(at, { etag, ...right })).status, 303);
  const { own } = await admin.expect(200, "GET", "/admin/v1/tenants/careful/quota");
  assert.deepEqual(own, { concurrency: null, burst: 1000, paths: ["container", "microvm"] });
});

test("a key is shown once, rotated and revoked", async () => {
  const ui = await signedIn(rig.adminKey);
  const id = await admin.tenant("keyed");
  const at = `/ui/tenants/${id}`;
  const none = await ui.post(`${at}/keys`, { name: "nothing" });
  assert.equal(none.status, 400);
  assert.match(none.text, /id="f-scopes-error"/);
  const past = await ui.post(`${at}/keys`, {
    name: "late",
    scopes: "read",
    expiresAt: "2001-01-01T00:00",
  });
  assert.match(past.text, /Expires: must be in the future/);
  const name = `<script>"'مفتاح`;
  const made = await ui.post(`${at}/keys`, [
    ["name", name],
    ["scopes", "read"],
    ["scopes", "deploy"],
    ["expiresAt", "2999-01-01T00:00"],
  ]);
  const clear = /value="(cl_[^"]+)"/.exec(made.text)?.[1] ?? "";
  assert.equal(
    (await fetch(`${rig.url}/v1/functions`, { headers: { authorization: `Bearer ${clear}` } }))
      .status,
    200,
  );
  const page = await ui.send(at);
  assert.ok(!page.text.includes(clear));
  assert.match(page.text, /&lt;script&gt;&quot;&#39;مفتاح/);
  const key = /key_[0-9a-v]{26}/.exec(page.text)?.[0] ?? "";
  const rotated = await ui.post(`${at}/keys/${key}/rotate`, {
    etag: await ui.etag(`${at}/keys/${key}/rotate`),
    graceMs: "0",
  });
  const renewed = /value="(cl_[^"]+)"/.exec(rotated.text)?.[1] ?? "";
  assert.notEqual(renewed, clear);
  const tag = await ui.etag(`${at}/keys/${key}/revoke`);
  assert.equal((await ui.post(`${at}/keys/${key}/revoke`, { etag: '"old"' })).status, 412);
  assert.equal((await ui.post(`${at}/keys/${key}/revoke`, { etag: tag })).status, 303);
  await new AdminClient(rig.url, renewed).refused(401, "unauthenticated", "GET", "/v1/functions");
  assert.equal((await ui.send(`${at}/keys/key_nothing/rotate`)).status, 404);
});
