import assert from "node:assert/strict";
import { Agent, request } from "node:http";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { Header, type HeaderData } from "tar";
import { newId } from "#contracts/ids";
import { type InvocationRecord, logChannel } from "#contracts/invocation";
import { readFunction } from "#db/functions";
import { insertInvocations } from "#db/invocations";
import { createKey, type Scope } from "#db/keys";
import { insertLogs } from "#db/logs";
import { ensureTenant } from "#db/tenants";
import { ERRORS } from "#errors/catalogue";
import { InvocationProducer } from "#queue/invocation-producer";
import { Publisher } from "#queue/pubsub";
import { type GatewayRig, startGatewayRig } from "./testkit/gateway-rig.ts";

let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig();
  await rig.publish("fn", { memoryMb: 128 });
});
after(() => rig?.stop());

type Json = Record<string, unknown>;
const json = async (response: Response): Promise<Json> => (await response.json()) as Json;

async function refused(response: Response, status: number, code: string): Promise<string> {
  const problem = await json(response);
  assert.equal(response.status, status, JSON.stringify(problem));
  assert.equal(problem.code, code);
  assert.equal(response.headers.get("content-type"), "application/problem+json");
  assert.equal(problem.type, `urn:cloister:error:${code}`);
  assert.ok(problem.title && problem.remedy);
  return problem.detail as string;
}

async function keyOf(
  tenantName: string,
  scopes: Scope[],
): Promise<Json & { authorization: string }> {
  const tenant = await ensureTenant(rig.db, tenantName, "standard");
  const { clear } = await createKey(rig.db, tenant.id, "test", scopes);
  return { authorization: `Bearer ${clear}` };
}

const publishJson = (body: unknown): Promise<Response> =>
  rig.fetch("/v1/functions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

type Entry = Partial<HeaderData> & { path: string; content?: string };

/** A tar.gz made header by header, as only a hostile client would. */
function pack(entries: Entry[]): Buffer<ArrayBuffer> {
  const blocks: Buffer[] = [];
  for (const { content = "", ...data } of entries) {
    const body = Buffer.from(content);
    const block = Buffer.alloc(512);
    new Header({ mode: 0o644, size: body.length, type: "File", ...data } as HeaderData).encode(
      block,
      0,
    );
    blocks.push(block, body, Buffer.alloc(-body.length & 511));
  }
  return Buffer.from(gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)])));
}

function publishForm(parts: Record<string, string | Buffer<ArrayBuffer>>): Promise<Response> {
  const form = new FormData();
  for (const [name, value] of Object.entries(parts)) {
    if (typeof value === "string") form.set(name, value);
    else form.set(name, new Blob([value], { type: "application/gzip" }), "bundle.tar.gz");
  }
  return rig.fetch("/v1/functions", { method: "POST", body: form });
}

const config = (name: string): string => JSON.stringify({ name });
const SOUND = pack([{ path: "index.mjs", content: "export default {};" }]);

test("publish, read, list, versions, delete", async () => {
  const first = await publishJson({
    name: "life",
    files: { "a.mjs": "1", "b.bin": { base64: "AAEC" } },
  });
  assert.equal(first.status, 201);
  const made = await json(first);
  assert.equal(made.name, "life");
  assert.equal(made.version, 1);
  assert.match(String(made.url), /\/f\/life$/);
  const second = await publishForm({ config: config("life"), bundle: SOUND });
  assert.equal((await json(second)).version, 2);
  const read = await json(await rig.fetch("/v1/functions/life"));
  assert.equal(read.version, 2);
  assert.equal((read.config as Json).runtime, "node24");
  const { versions } = await json(await rig.fetch("/v1/functions/life/versions"));
  assert.deepEqual(
    (versions as Json[]).map(({ version }) => version),
    [2, 1],
  );
  const page = await json(await rig.fetch("/v1/functions?limit=1"));
  assert.deepEqual(
    (page.functions as Json[]).map(({ name }) => name),
    ["fn"],
  );
  assert.equal(page.next, "fn");
  const rest = await json(await rig.fetch("/v1/functions?after=fn"));
  assert.deepEqual(
    (rest.functions as Json[]).map(({ name }) => name),
    ["life"],
  );
  assert.equal(rest.next, undefined);
  assert.equal((await rig.fetch("/f/life/")).status, 200);
  assert.equal((await rig.fetch("/v1/functions/life", { method: "DELETE" })).status, 204);
  await refused(await rig.fetch("/v1/functions/life"), 404, "function_not_found");
  await refused(await rig.fetch("/f/life/"), 404, "function_not_found");
});

test("a version that was just published is the one that is called", async () => {
  for (const version of [1, 2, 3]) {
    await rig.publish("quick");
    await rig.fetch("/f/quick/");
    const versionId = (await json(await rig.fetch("/v1/functions/quick"))).versionId;
    assert.equal(rig.worker.jobs.at(-1)?.versionId, versionId, `version ${version}`);
  }
});

const BAD_JSON: [title: string, body: unknown, status: number, code: string, detail: RegExp][] = [
  ["no JSON", "{", 400, "bad_request", /not JSON/],
  ["no object", "[]", 400, "bad_request", /object/],
  ["no files", { name: "x" }, 400, "bad_request", /files/],
  ["an unknown field", { name: "x", memory: 1, files: { a: "" } }, 400, "bad_request", /memory/],
  [
    "a wish for a network",
    { name: "x", egress: ["example.org"], files: { a: "" } },
    501,
    "not_implemented",
    /no network/,
  ],
  ["a name that can be none", { name: "A b", files: { a: "" } }, 400, "bad_request", /name/],
  [
    "too little memory",
    { name: "x", memoryMb: 1, files: { a: "" } },
    400,
    "bad_request",
    /memoryMb/,
  ],
  ["a path that climbs", { name: "x", files: { "../up": "" } }, 400, "bad_bundle", /\.\.\/up/],
  ["an absolute path", { name: "x", files: { "/etc/x": "" } }, 400, "bad_bundle", /etc/],
  ["no base64", { name: "x", files: { a: { base64: "?" } } }, 400, "bad_bundle", /"a"/],
  ["a file below a file", { name: "x", files: { a: "", "a/b": "" } }, 400, "bad_bundle", /a\/b/],
];
for (const [title, body, status, code, detail] of BAD_JSON)
  test(`JSON that is refused: ${title}`, async () => {
    assert.match(await refused(await publishJson(body), status, code), detail);
  });

const BAD_BUNDLES: [title: string, bundle: Buffer<ArrayBuffer>, detail: RegExp][] = [
  ["a path that climbs", pack([{ path: "a/../../x" }]), /a\/\.\.\/\.\.\/x/],
  ["a link out", pack([{ path: "l", type: "SymbolicLink", linkpath: "../../etc" }]), /"l"/],
  ["an absolute link", pack([{ path: "l", type: "SymbolicLink", linkpath: "/etc" }]), /"l"/],
  ["a hard link to nothing", pack([{ path: "h", type: "Link", linkpath: "none" }]), /"h"/],
  ["a device", pack([{ path: "d", type: "CharacterDevice" }]), /"d"/],
  ["a fifo", pack([{ path: "p", type: "FIFO" }]), /"p"/],
  ["a name twice", pack([{ path: "a" }, { path: "./a" }]), /"\.\/a"|"a"/],
  [
    "a file through a link",
    pack([{ path: "l", type: "SymbolicLink", linkpath: "d" }, { path: "l/x" }]),
    /"l\/x"/,
  ],
  ["nothing", pack([]), /empty|no sound tar/],
  ["no gzip", Buffer.from("hello"), /no sound tar\.gz/],
  ["half a gzip", SOUND.subarray(0, SOUND.length - 12), /no sound tar\.gz/],
  ["no tar", Buffer.from(gzipSync(Buffer.alloc(4096, 1))), /no sound tar\.gz/],
  [
    "a bomb",
    Buffer.from(gzipSync(Buffer.alloc(700 << 20))),
    /more than a bundle may hold|after its end/,
  ],
];
for (const [title, bundle, detail] of BAD_BUNDLES)
  test(`a bundle that is refused: ${title}`, async () => {
    const response = await publishForm({ config: config("bad"), bundle });
    assert.match(await refused(response, 400, "bad_bundle"), detail);
    const tenant = await ensureTenant(rig.db, "default", "trusted");
    assert.equal(await readFunction(rig.db, tenant.id, "bad"), undefined);
  });

test("a bundle over 50 MiB is refused as it comes", async () => {
  const bundle = Buffer.alloc((50 << 20) + 1);
  await refused(await publishForm({ config: config("big"), bundle }), 413, "body_too_large");
  const text = "x".repeat(25 << 20);
  await refused(await publishJson({ name: "big", files: { a: text } }), 413, "body_too_large");
});

test("forms that are none", async () => {
  await refused(await publishForm({ bundle: SOUND }), 400, "bad_request");
  await refused(await publishForm({ config: config("x") }), 400, "bad_request");
  await refused(await publishForm({ config: "{", bundle: SOUND }), 400, "bad_request");
  assert.match(
    await refused(
      await publishForm({ config: config("x"), bundle: SOUND, other: "1" }),
      400,
      "bad_request",
    ),
    /other|more parts/,
  );
  assert.match(
    await refused(
      await publishForm({ config: '{"name":"x","memoryMb":1}', bundle: SOUND }),
      400,
      "bad_request",
    ),
    /config\.memoryMb/,
  );
  const post = (type: string, body: string): Promise<Response> =>
    rig.fetch("/v1/functions", { method: "POST", body, headers: { "content-type": type } });
  await refused(await post("multipart/form-data", "x"), 415, "unsupported_media_type");
  await refused(await post("multipart/form-data; boundary=b", "no form"), 400, "bad_request");
  await refused(await post("multipart/form-data; boundary=b", "--b\r\nx"), 400, "bad_request");
  await refused(await post("text/plain", "x"), 415, "unsupported_media_type");
});

test("names that can be none are not there, and a version is not taken for its function", async () => {
  for (const name of ["%00", "a%20b", "%FF", "a".repeat(64)])
    await refused(await rig.fetch(`/v1/functions/${name}`), 404, "function_not_found");
  await refused(await rig.fetch("/v1/functions?after=%00"), 400, "bad_request");
  const one = await rig.fetch("/v1/functions/fn@1", { method: "DELETE" });
  await refused(one, 400, "bad_request");
  assert.equal((await rig.fetch("/v1/functions/fn")).status, 200);
});

test("each scope opens its own doors", async () => {
  const reader = await keyOf("default", ["read"]);
  const invoker = await keyOf("default", ["invoke"]);
  assert.equal(
    (await fetch(`${rig.url}/v1/functions/fn`, { headers: reader as never })).status,
    200,
  );
  for (const [headers, method, path] of [
    [reader, "GET", "/f/fn/"],
    [reader, "DELETE", "/v1/functions/fn"],
    [invoker, "GET", "/v1/functions/fn/logs"],
    [invoker, "GET", "/v1/functions"],
    [invoker, "POST", "/v1/functions"],
  ] as const) {
    const response = await fetch(`${rig.url}${path}`, { method, headers: headers as never });
    assert.match(await refused(response, 403, "forbidden"), /lacks the scope/);
  }
});

test("tenants do not see each other", async () => {
  const headers = (await keyOf("stranger", ["invoke", "read", "deploy"])) as never;
  for (const [method, path] of [
    ["GET", "/f/fn/"],
    ["POST", "/v1/functions/fn/invocations"],
    ["GET", "/v1/functions/fn"],
    ["GET", "/v1/functions/fn/versions"],
    ["GET", "/v1/functions/fn/logs"],
    ["GET", "/v1/functions/fn/logs?follow=true"],
    ["GET", "/v1/functions/fn/placement"],
    ["DELETE", "/v1/functions/fn"],
  ] as const) {
    const response = await fetch(`${rig.url}${path}`, { method, headers });
    await refused(response, 404, "function_not_found");
  }
  const list = await json(await fetch(`${rig.url}/v1/functions`, { headers }));
  assert.deepEqual(list.functions, []);
});

test("placement tells the path and why, and what a refusal would be", async () => {
  await rig.worker.beat();
  const fits = await json(await rig.fetch("/v1/functions/fn/placement"));
  assert.equal(fits.path, "container");
  assert.deepEqual(fits.rules, ["auto-trusted", "node-offers"]);
  assert.equal((fits.reasons as string[]).length, 2);
  const [silent] = fits.nodes as Json[];
  assert.equal(silent?.answered, false, "a node that does not answer is judged by its heartbeat");
  const stronger = await json(await rig.fetch("/v1/functions/fn/placement?isolation=microvm"));
  assert.equal(stronger.path, null);
  assert.equal(stronger.code, "isolation_unavailable");
  await refused(await rig.fetch("/v1/functions/fn/placement?isolation=x"), 400, "bad_request");
});

test("stored lines come as a page, new ones as events", async () => {
  const tenant = await ensureTenant(rig.db, "default", "trusted");
  const fn = await readFunction(rig.db, tenant.id, "fn");
  assert.ok(fn);
  const line = (text: string) => ({
    tenantId: tenant.id,
    functionId: fn.id,
    version: 1,
    atMs: Date.now(),
    stream: "stdout" as const,
    text,
  });
  await insertLogs(rig.db, [line("one"), line("two")]);
  const page = await json(await rig.fetch("/v1/functions/fn/logs?limit=1"));
  assert.deepEqual(
    (page.entries as Json[]).map(({ text }) => text),
    ["two"],
  );
  await refused(await rig.fetch("/v1/functions/fn/logs?invocation=x"), 400, "bad_request");
  const response = await rig.fetch("/v1/functions/fn/logs?follow=true");
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const producer = new InvocationProducer(rig.redis.url, (error) => assert.fail(error));
  await producer.ready();
  const publisher = new Publisher(producer.redis);
  assert.ok(response.body);
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (text.includes("three")) break;
    // The first bytes say that it listens: from then on no line is missed.
    assert.equal(await publisher.publish(logChannel(fn.id), [line("three")]), 1);
  }
  assert.match(text, /^data: \[\{.*"text":"three".*\}\]$/m);
  await producer.close();
});

test("a record is told to its own tenant", async () => {
  const tenant = await ensureTenant(rig.db, "default", "trusted");
  const now = Date.now();
  const record: InvocationRecord = {
    id: newId("inv"),
    tenantId: tenant.id,
    functionId: "fn_1",
    versionId: "ver_1",
    acceptedAtMs: now,
    finishedAtMs: now + 1,
    status: "ok",
    path: "microvm",
    placementReasons: ["asked for"],
    phases: { queue_ms: 0.5 },
    durationMs: 1,
    billedMs: 1,
    memoryMb: 128,
    requestBytes: 0,
    responseBytes: 1,
    nodeId: "node_1",
    exits: { syscall: 3, fault: 0, interrupted: 0, page_unavailable: 0 },
    syscalls: { sendmsg: 3 },
    pageFaults: 2,
    guestMs: 0.75,
    monitorMs: 0.25,
  };
  const theirs = await ensureTenant(rig.db, "records-of-others", "trusted");
  const hidden = { ...record, id: newId("inv"), tenantId: theirs.id };
  await insertInvocations(rig.db, [record, hidden]);
  const { tenantId: _, ...told } = record;
  assert.deepEqual(await json(await rig.fetch(`/v1/invocations/${record.id}`)), told);
  await refused(await rig.fetch(`/v1/invocations/${hidden.id}`), 404, "not_found");
  await refused(await rig.fetch("/v1/invocations/inv_x"), 400, "bad_request");
});

test("addresses of later versions are told apart from those that will never be", async () => {
  for (const path of [
    "/v1/functions/fn/aliases",
    "/v1/functions/fn/secrets/x",
    "/v1/functions/fn/schedules",
    "/v1/dead-letters",
    "/2015-03-31/functions/fn/invocations",
  ])
    await refused(await rig.fetch(path), 501, "not_implemented");
  await refused(await rig.fetch("/nowhere"), 404, "not_found");
  await refused(await rig.fetch("/v1/functions/fn/nothing"), 404, "not_found");
  const wrong = await rig.fetch("/v1/functions/fn", { method: "PUT" });
  assert.match(await refused(wrong, 405, "method_not_allowed"), /GET, DELETE/);
});

test("health, readiness and metrics", async () => {
  assert.equal((await fetch(`${rig.url}/healthz`)).status, 200);
  await rig.worker.beat();
  const ready = await fetch(`${rig.url}/readyz`);
  assert.deepEqual(await ready.json(), { ready: true, missing: [] });
  await rig.worker.beat({ sandboxd: false });
  const unready = await fetch(`${rig.url}/readyz`);
  assert.equal(unready.status, 503);
  assert.deepEqual(await unready.json(), { ready: false, missing: ["worker"] });
  await rig.worker.beat({ sandboxd: true });
  await rig.fetch("/f/fn/");
  const text = await (await fetch(`${rig.url}/metrics`)).text();
  assert.match(text, /^cloister_gateway_invocations_total\{code="ok"\} [1-9]/m);
  assert.match(
    text,
    /^cloister_gateway_requests_total\{route="\/v1\/functions\/:name",status="4xx"\} \d/m,
  );
  assert.match(text, /^cloister_gateway_open_calls 0$/m);
});

test("the document describes what is served, and its codes are the catalogue's", async () => {
  const document = (await (await fetch(`${rig.url}/openapi.json`)).json()) as {
    openapi: string;
    paths: Record<string, Record<string, { responses: Record<string, unknown> }>>;
    components: { schemas: Record<string, { properties: Record<string, { enum?: string[] }> }> };
  };
  assert.match(document.openapi, /^3\.1/);
  assert.deepEqual(document.components.schemas.Problem?.properties.code?.enum, Object.keys(ERRORS));
  const described = Object.keys(document.paths);
  for (const path of [
    "/f/{function}/{path}",
    "/v1/functions",
    "/v1/functions/{name}",
    "/v1/functions/{name}/invocations",
    "/v1/functions/{name}/versions",
    "/v1/functions/{name}/placement",
    "/v1/functions/{name}/logs",
  ])
    assert.ok(described.includes(path), path);
  const references = JSON.stringify(document).match(/#\/components\/schemas\/\w+/g) ?? [];
  for (const reference of references)
    assert.ok(document.components.schemas[reference.split("/").at(-1) ?? ""], reference);
  for (const [path, methods] of Object.entries(document.paths))
    for (const [method, operation] of Object.entries(methods))
      assert.ok(Object.keys(operation.responses).length > 0, `${method} ${path}`);
  // The limits that validate are the limits that are written.
  assert.match(JSON.stringify(document.components.schemas.PublishRequest), /"maximum":4096/);
});

test("the pages for people load nothing from elsewhere", async () => {
  const root = await rig.fetch("/");
  assert.equal(root.headers.get("location"), "/docs");
  const page = await fetch(`${rig.url}/docs`);
  assert.match(
    page.headers.get("content-security-policy") ?? "",
    /^default-src 'none'; script-src 'self'/,
  );
  const html = await page.text();
  const links = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, link]) => link ?? "");
  assert.equal(links.length, 3);
  for (const link of links) {
    assert.match(link, /^\/docs\//);
    assert.equal((await fetch(`${rig.url}${link}`)).status, 200);
  }
  await refused(await rig.fetch("/docs/package.json"), 404, "not_found");
});

test("an address in absolute form, as proxies' clients send it, is served", async () => {
  const agent = new Agent();
  const status = await new Promise<number | undefined>((resolve, reject) => {
    const call = request(`${rig.url}`, {
      agent,
      path: "http://functions.example/f/fn/x",
      headers: { authorization: `Bearer ${rig.key}`, host: "functions.example" },
    });
    call.on("response", (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    call.on("error", reject);
    call.end();
  });
  agent.destroy();
  assert.equal(status, 200);
  assert.equal(rig.worker.jobs.at(-1)?.head.url, "http://functions.example/x");
});
