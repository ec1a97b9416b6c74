import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { text as textOf } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { newId } from "#contracts/ids";
import { monthOf, PLANS } from "#contracts/quota";
import { insertInvocations } from "#db/invocations";
import { createKey } from "#db/keys";
import type { TenantTier } from "#db/schema";
import { ensureTenant } from "#db/tenants";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { answers } from "../testkit/worker-side.ts";

const LEASE_MS = 1200;

let rig: GatewayRig;
let redis: Redis;
/** A second gateway, in a process of its own whose clock is an hour fast. */
let other: string;
before(async () => {
  rig = await startGatewayRig({ quotaLeaseMs: LEASE_MS });
  redis = connectRedis(rig.redis.url, "request");
  other = (await rig.anotherProcess(3_600_000)).url;
});
after(async () => {
  await disconnectRedis(redis);
  await rig?.stop();
});

type Json = Record<string, unknown>;
const json = async (response: Response): Promise<Json> => (await response.json()) as Json;

/** A tenant with a function `fn` of 256 MiB and 10 s. */
interface Subject {
  id: string;
  name: string;
  authorization: string;
  call(path?: string, base?: string, init?: RequestInit): Promise<Response>;
  publish(config: Json, files?: Json): Promise<Response>;
  quota(change?: Json, headers?: Record<string, string>): Promise<Response>;
  functionQuota(change?: Json, headers?: Record<string, string>): Promise<Response>;
}

let made = 0;
async function subject(quota?: Json, tier: TenantTier = "trusted"): Promise<Subject> {
  const name = `tenant-${made++}`;
  const { id } = await ensureTenant(rig.db, name, tier);
  const { clear } = await createKey(rig.db, id, "test", ["invoke", "deploy", "read"]);
  const authorization = `Bearer ${clear}`;
  const send = (path: string, key: string, body: Json | undefined, headers = {}) =>
    rig.fetch(path, {
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers },
      ...(body ? { method: "PUT", body: JSON.stringify(body) } : {}),
    });
  const one: Subject = {
    id,
    name,
    authorization,
    call: (path = "/f/fn/", base = rig.url, init = {}) =>
      fetch(`${base}${path}`, {
        signal: AbortSignal.timeout(30_000),
        headers: { authorization },
        ...init,
      }),
    publish: (config, files = { "index.mjs": "export default {};" }) =>
      rig.fetch("/v1/functions", {
        method: "POST",
        headers: { authorization, "content-type": "application/json" },
        body: JSON.stringify({ name: "fn", files, ...config }),
      }),
    quota: (change, headers) =>
      send(`/admin/v1/tenants/${name}/quota`, rig.adminKey, change, headers),
    functionQuota: (change, headers) => send("/v1/functions/fn/quota", clear, change, headers),
  };
  assert.equal((await one.publish({})).status, 201);
  if (quota) assert.equal((await one.quota(quota)).status, 200);
  return one;
}

/** Checks that it is the quota's refusal, and gives the problem. */
async function exceeded(response: Response, quota: string, of = "tenant"): Promise<Json> {
  const problem = await json(response);
  assert.equal(response.status, 429, JSON.stringify(problem));
  assert.deepEqual([problem.code, problem.quota, problem.of], ["quota_exceeded", quota, of]);
  assert.match(response.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
  const name = of === "tenant" ? quota : `function-${quota}`;
  const policy = response.headers.get("ratelimit-policy") ?? "";
  assert.ok(policy.includes(`"${name}";q=`), policy);
  const limit = response.headers.get("ratelimit") ?? "";
  assert.ok(limit.includes(`"${name}";r=0`), limit);
  return problem;
}

/** Statuses of calls one after the other, at the two gateways in turn. */
async function statuses(one: Subject, count: number, path?: string): Promise<number[]> {
  const seen: number[] = [];
  for (let call = 0; call < count; call++) {
    const response = await one.call(path, call % 2 === 0 ? rig.url : other);
    seen.push(response.status);
    await response.arrayBuffer();
  }
  return seen;
}

/** Asks until `status` is answered: the other gateway hears of a change a moment later. */
async function until(status: number, ask: () => Promise<Response>): Promise<Response> {
  for (;;) {
    const response = await ask();
    if (response.status === status) return response;
    await response.arrayBuffer();
  }
}

/** Calls that wait in a function until they are let go. */
function held(path: string) {
  let letGo = (): void => {};
  let come = (): void => {};
  const open = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const arrived = new Promise<void>((resolve) => {
    come = resolve;
  });
  rig.worker.behaviours.set(path, async (served) => {
    come();
    await Promise.race([open, served.gone]);
    await answers(200)(served);
  });
  return { letGo, arrived };
}

test("two gateways let in together what the burst allows, whatever their clocks say", async () => {
  const one = await subject({ requestsPerSecond: 0.01, burst: 7 });
  const seen = await statuses(one, 20);
  assert.deepEqual(seen, [...Array(7).fill(200), ...Array(13).fill(429)]);
  const problem = await exceeded(await one.call("/f/fn/", other), "requestsPerSecond");
  assert.equal(problem.limit, 0.01);
  assert.match(String(problem.detail), /0\.01 calls a second/);
  // A second gateway with its clock an hour ahead would say otherwise if it were asked.
  const again = await one.call();
  const seconds = Number(again.headers.get("retry-after"));
  assert.ok(seconds > 0 && seconds <= 100, String(seconds));
  await exceeded(again, "requestsPerSecond");
});

test("what is let in is told what is left, and a call that nothing limits is not even counted", async () => {
  const one = await subject({
    requestsPerSecond: 0.5,
    burst: 10,
    concurrency: 4,
    gbSecondsPerMonth: 1000,
  });
  const response = await one.call();
  assert.equal(response.status, 200);
  assert.equal(
    response.headers.get("ratelimit-policy"),
    '"requestsPerSecond";q=10;w=20, "concurrency";q=4;qu="concurrent-requests", "gbSecondsPerMonth";q=1000;qu="gb-seconds"',
  );
  const limit = response.headers.get("ratelimit") ?? "";
  assert.match(
    limit,
    /^"requestsPerSecond";r=9;t=2, "concurrency";r=3, "gbSecondsPerMonth";r=1000;t=\d+$/,
  );
  assert.match(response.headers.get("server-timing") ?? "", /^admit;dur=[\d.]+, /);

  const free = await subject();
  const unlimited = await free.call();
  assert.equal(unlimited.status, 200);
  assert.equal(unlimited.headers.get("ratelimit"), null);
  assert.doesNotMatch(unlimited.headers.get("server-timing") ?? "", /admit/);
  assert.deepEqual(await redis.keys(`cloister:quota:{${free.id}}*`), []);
});

test("what is known to be over a quota is refused before its body has come", async () => {
  const one = await subject();
  assert.equal((await one.quota({ memoryMb: 128 })).status, 200);
  // An event of which no byte ever comes: without its body nothing could be begun.
  const sending = request(`${rig.url}/v1/functions/fn/invocations`, {
    method: "POST",
    headers: { authorization: one.authorization, "content-length": "1000" },
  });
  sending.on("error", () => {});
  sending.flushHeaders();
  const [answer] = (await once(sending, "response")) as [IncomingMessage];
  assert.equal(answer.statusCode, 429);
  const { quota, of } = JSON.parse(await textOf(answer)) as Json;
  assert.deepEqual([quota, of], ["memoryMb", "tenant"]);
  sending.destroy();
});

test("calls that wait for a worker count as calls at once, and free their place however they end", async () => {
  const one = await subject({ concurrency: 2 });
  const free = await subject();
  await rig.worker.pause();
  // The one that it was already asking for.
  assert.equal((await free.call()).status, 200);
  const hangUp = new AbortController();
  const first = one.call("/f/fn/a");
  const second = one.call("/f/fn/b", other, { signal: hangUp.signal });
  second.catch(() => {});
  const use = async () => ((await json(await one.quota())).use as Json).concurrency;
  while ((await use()) !== 2);
  const third = await one.call();
  assert.match(third.headers.get("ratelimit") ?? "", /^"concurrency";r=0$/);
  await exceeded(third, "concurrency");
  hangUp.abort();
  while ((await use()) !== 1);
  await rig.worker.resume();
  assert.equal((await first).status, 200);
  rig.worker.behaviours.set("/broken", async ({ reply }) => {
    reply.error({ code: "function_error", message: "no" });
  });
  for (let call = 0; call < 5; call++) {
    // The head of an answer comes before the call's end, which frees its place.
    while ((await use()) !== 0);
    const broken = await one.call("/f/fn/broken");
    assert.equal(broken.status, 500);
    assert.equal(broken.headers.get("ratelimit"), '"concurrency";r=1');
    assert.equal((await one.call("/f/fn/", other)).status, 200);
  }
});

test("a killed gateway's calls end with their leases, those of a living one stay counted", async () => {
  const one = await subject({ concurrency: 2 });
  const doomed = await rig.anotherProcess();
  const [first, second, third] = [held("/first"), held("/second"), held("/third")];
  const living = one.call("/f/fn/first");
  await first.arrived;
  const killed = one.call("/f/fn/second", doomed.url);
  killed.catch(() => {});
  await second.arrived;
  await exceeded(await one.call(), "concurrency");
  await doomed.kill();
  await assert.rejects(killed);
  // Nobody gives the dead one's lease back: it ends by itself, after which the living one must have been renewed.
  assert.equal((await until(200, () => one.call())).status, 200);
  const next = one.call("/f/fn/third", other);
  await third.arrived;
  await exceeded(await one.call(), "concurrency");
  first.letGo();
  third.letGo();
  assert.deepEqual([(await living).status, (await next).status], [200, 200]);
});

test("a month that is used up is refused until the next, and a Redis that forgot it learns it from the records", async () => {
  const one = await subject({ gbSecondsPerMonth: 100 });
  const now = Date.now();
  await insertInvocations(rig.db, [
    {
      id: newId("inv"),
      tenantId: one.id,
      functionId: "fn_1",
      versionId: "ver_1",
      acceptedAtMs: now,
      finishedAtMs: now,
      status: "ok",
      placementReasons: [],
      phases: {},
      durationMs: 1,
      billedMs: 50_000,
      memoryMb: 2048,
      requestBytes: 0,
      responseBytes: 0,
      nodeId: "node_1",
    },
  ]);
  for (let forgotten = 0; forgotten < 2; forgotten++) {
    const refusal = await one.call();
    const end = new Date(now);
    end.setUTCMonth(end.getUTCMonth() + 1, 1);
    end.setUTCHours(0, 0, 0, 0);
    const seconds = Number(refusal.headers.get("retry-after"));
    assert.ok(Math.abs(seconds - (end.getTime() - now) / 1000) < 60, String(seconds));
    await exceeded(refusal, "gbSecondsPerMonth");
    await redis.del(`cloister:quota:{${one.id}}:months`);
  }
  const { use, over } = await json(await one.quota({ gbSecondsPerMonth: 101 }));
  assert.equal((use as Json).gbSecondsPerMonth, 100);
  assert.deepEqual(over, []);
  assert.equal((await one.call()).status, 200);
  assert.equal(await redis.hget(`cloister:quota:{${one.id}}:months`, monthOf(now)), String(100e9));
});

test("a change is followed by every gateway, also by one that knew of no limit", async () => {
  const one = await subject();
  assert.deepEqual(await statuses(one, 4), [200, 200, 200, 200]);
  await one.quota({ requestsPerSecond: 0.001, burst: 1 });
  assert.equal((await one.call()).status, 200);
  await exceeded(await until(429, () => one.call("/f/fn/", other)), "requestsPerSecond");
  await one.quota({});
  assert.equal((await one.call()).status, 200);
  assert.equal((await until(200, () => one.call("/f/fn/", other))).status, 200);
});

test("a function may have less than its tenant, not more, and never more than is left to the tenant", async () => {
  const one = await subject({ requestsPerSecond: 0.01, burst: 8, concurrency: 5 });
  const more = await one.functionQuota({ requestsPerSecond: 1, burst: 1, concurrency: 9 });
  assert.equal(more.status, 400);
  assert.match(
    String((await json(more)).detail),
    /requestsPerSecond is at most 0.01, concurrency is at most 5/,
  );
  const set = await one.functionQuota({ requestsPerSecond: 0.005, burst: 3 });
  assert.deepEqual(await json(set), {
    ...{ function: "fn", requestsPerSecond: 0.005, burst: 3, concurrency: 5 },
    ...{ memoryMb: null, timeoutMs: null, own: { requestsPerSecond: 0.005, burst: 3 } },
  });
  assert.equal((await one.publish({ name: "other" })).status, 201);
  const seen: number[] = [];
  for (let call = 0; call < 4; call++) seen.push((await one.call()).status);
  assert.deepEqual(seen, [200, 200, 200, 429]);
  await exceeded(await one.call(), "requestsPerSecond", "function");
  const others: number[] = [];
  for (let call = 0; call < 6; call++) others.push((await one.call("/f/other/")).status);
  assert.deepEqual(others, [200, 200, 200, 200, 200, 429]);
  await exceeded(await one.call("/f/other/"), "requestsPerSecond");
  const shown = await json(await one.functionQuota());
  assert.deepEqual(shown.own, { requestsPerSecond: 0.005, burst: 3 });
  assert.equal((await one.functionQuota({ memoryMb: 64 })).status, 200);
  await exceeded(await one.call(), "memoryMb", "function");
  await exceeded(await one.publish({}), "memoryMb", "function");
});

test("a deploy over a quota is refused and leaves nothing", async () => {
  const one = await subject({ memoryMb: 256, timeoutMs: 10_000, functions: 2, bundleBytes: 2000 });
  await exceeded(await one.publish({ memoryMb: 257 }), "memoryMb");
  await exceeded(await one.publish({ timeoutMs: 10_001 }), "timeoutMs");
  const large = randomBytes(3000);
  await exceeded(
    await one.publish({}, { "index.mjs": { base64: large.toString("base64") } }),
    "bundleBytes",
  );
  assert.equal((await one.publish({})).status, 201);
  const names = ["second", "third", "fourth", "fifth"];
  const published = await Promise.all(names.map((name) => one.publish({ name })));
  const created = published.filter(({ status }) => status === 201);
  assert.equal(created.length, 1);
  for (const response of published)
    if (response.status !== 201) await exceeded(response, "functions");
  assert.equal((await one.publish({})).status, 201);
  await one.quota({ paths: ["container"] });
  await exceeded(await one.publish({ isolation: "microvm" }), "paths");
  const wish = await one.call("/f/fn/", rig.url, {
    headers: { "cloister-isolation": "microvm", authorization: "" },
  });
  assert.equal(wish.status, 401);
});

test("a quota below what is used is taken and told; what is over it starts no more", async () => {
  const one = await subject();
  assert.equal((await one.publish({ name: "small", memoryMb: 64 })).status, 201);
  const { letGo, arrived } = held("/running");
  const running = one.call("/f/fn/running");
  await arrived;
  const lowered = await json(
    await one.quota({ memoryMb: 128, functions: 1, timeoutMs: 5000, bundleBytes: 1 }),
  );
  assert.deepEqual([...(lowered.over as string[])].sort(), [
    ...["bundleBytes", "functions", "memoryMb", "timeoutMs"],
  ]);
  await exceeded(await one.call(), "memoryMb");
  await exceeded(await one.publish({ name: "new", memoryMb: 64, timeoutMs: 1 }), "bundleBytes");
  letGo();
  assert.equal((await running).status, 200);
  await one.quota({ memoryMb: 256 });
  assert.equal((await one.call()).status, 200);
});

test("a Redis that is away lets nobody in who has limits, and everybody again when it is back", async () => {
  const one = await subject({ concurrency: 1 });
  const { letGo, arrived } = held("/through");
  const through = one.call("/f/fn/through");
  await arrived;
  rig.redis.process.kill("SIGSTOP");
  const away = await one.call("/f/fn/", other);
  assert.equal(away.status, 503);
  assert.equal((await json(away)).code, "dependency_unavailable");
  assert.ok(away.headers.get("retry-after"));
  rig.redis.process.kill("SIGCONT");
  // Redis lost all it knew, the script too: the lease of the call that still runs is made again.
  await redis.flushall();
  await redis.script("FLUSH");
  await until(429, () => one.call());
  letGo();
  assert.equal((await through).status, 200);
  assert.equal((await until(200, () => one.call())).status, 200);
});

const WRONG: [string, unknown][] = [
  ["negative", { concurrency: -1 }],
  ["no rate at all", { requestsPerSecond: 0 }],
  ["huge", { requestsPerSecond: 1e300 }],
  ["more than a platform's limit", { memoryMb: 8192 }],
  ["fractional", { concurrency: 1.5 }],
  ["text", { functions: "10" }],
  ["an unknown field", { concurrencyy: 1 }],
  ["what GET tells beside it", { use: {} }],
  ["an unknown path", { paths: ["vm"] }],
  ["no path", { paths: [] }],
  ["a path twice", { paths: ["microvm", "microvm"] }],
  ["what contradicts itself", { paths: ["container"], minimumIsolation: "microvm" }],
  ["no object", []],
  ["nothing", null],
];
for (const [what, body] of WRONG)
  test(`a quota that is refused: ${what}`, async () => {
    const response = await rig.fetch("/admin/v1/tenants/default/quota", {
      method: "PUT",
      headers: { authorization: `Bearer ${rig.adminKey}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const problem = await json(response);
    assert.equal(response.status, 400, JSON.stringify(problem));
    assert.equal(problem.code, "bad_request");
    assert.ok(String(problem.detail).length > 10);
  });

test("what is left out is the plan's, null is unlimited, and burst belongs to its rate", async () => {
  const one = await subject({ concurrency: null, requestsPerSecond: 2.5 }, "untrusted");
  const shown = await json(await one.quota());
  assert.equal(shown.concurrency, null);
  assert.deepEqual([shown.requestsPerSecond, shown.burst], [2.5, 3]);
  assert.equal(shown.functions, PLANS.untrusted.functions);
  assert.equal(shown.minimumIsolation, "microvm");
  assert.deepEqual(shown.own, { concurrency: null, requestsPerSecond: 2.5 });
  assert.deepEqual(shown.plan, PLANS.untrusted);
  const back = await json(await one.quota(shown.own as Json));
  assert.deepEqual({ ...back, use: null }, { ...shown, use: null });
  const contradicts = await one.quota({ paths: ["container"] });
  assert.equal(contradicts.status, 400);
  assert.equal(
    (await one.quota({ paths: ["container"], minimumIsolation: "container" })).status,
    200,
  );
});

test("of changes that rest on the same state one is taken; a blind one does not undo another key's", async () => {
  const one = await subject();
  const etag = (await one.quota()).headers.get("etag") ?? "";
  assert.match(etag, /^"ten_.*0"$/);
  const at = Array.from({ length: 8 }, (_, index) => ({ concurrency: index + 1 }));
  const answered = await Promise.all(at.map((change) => one.quota(change, { "if-match": etag })));
  const taken = answered.filter(({ status }) => status === 200);
  assert.equal(taken.length, 1);
  for (const response of answered)
    if (response.status !== 200) {
      assert.equal(response.status, 412);
      assert.equal((await json(response)).code, "precondition_failed");
    }
  const [winner] = taken;
  const now = await one.quota();
  assert.equal(now.headers.get("etag"), winner?.headers.get("etag"));
  assert.deepEqual((await json(now)).own, ((await json(winner as Response)) as Json).own);
  const { clear } = await createKey(
    rig.db,
    (await ensureTenant(rig.db, "default", "trusted")).id,
    "another",
    ["admin"],
  );
  const byAnother = (headers: Record<string, string>) =>
    one.quota({}, { authorization: `Bearer ${clear}`, ...headers });
  const blind = await byAnother({});
  assert.deepEqual([blind.status, (await json(blind)).code], [428, "precondition_required"]);
  assert.equal((await byAnother({ "if-match": etag })).status, 412);
  assert.equal((await byAnother({ "if-match": "*" })).status, 200);
  assert.equal((await byAnother({})).status, 200);
  const many = await Promise.all(at.map(() => byAnother({})));
  assert.deepEqual(new Set(many.map(({ status }) => status)), new Set([200]));
});

test("quotas are read and set by admins only, and of tenants that exist", async () => {
  const path = "/admin/v1/tenants/default/quota";
  assert.equal((await rig.fetch(path)).status, 403);
  const admin = { authorization: `Bearer ${rig.adminKey}` };
  for (const name of ["nobody", "ten_00000000000000000000000000", "%00", "a b"]) {
    const response = await rig.fetch(`/admin/v1/tenants/${name}/quota`, { headers: admin });
    assert.equal(response.status, 404, name);
    assert.equal((await json(response)).code, "tenant_not_found");
  }
  const first = await json(await rig.fetch(path, { headers: admin }));
  for (const field of Object.keys(PLANS.trusted)) assert.equal(first[field], null, field);
});

test("who set a quota, and from what to what, is in the audit log", async () => {
  const one = await subject({ concurrency: 3 });
  assert.equal((await one.quota({ concurrency: 5 })).status, 200);
  const headers = { authorization: `Bearer ${rig.adminKey}` };
  const response = await rig.fetch(`/admin/v1/audit?tenant=${one.name}`, { headers });
  const { entries } = (await json(response)) as { entries: Json[] };
  const [last] = entries.filter(({ action }) => action === "quota.replace");
  assert.deepEqual([last?.before, last?.after], [{ concurrency: 3 }, { concurrency: 5 }]);
  assert.equal(last?.subject, one.id);
});
