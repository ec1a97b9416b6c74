import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { newId } from "#contracts/ids";
import type { InvocationRecord } from "#contracts/invocation";
import { HOUR_MS } from "#contracts/usage";
import { insertInvocations } from "#db/invocations";
import { createKey, type Scope } from "#db/keys";
import { ensureTenant, tenantByName } from "#db/tenants";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { hourRange } from "../usage/range.ts";

const DAY_MS = 24 * HOUR_MS;
const thisHourMs = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;
const at = (ms: number): string => new Date(ms).toISOString().replace(".000Z", "Z");

let rig: GatewayRig;
let tenant: string;
before(async () => {
  rig = await startGatewayRig();
  tenant = (await tenantByName(rig.db, "default"))?.id ?? "";
  await rig.publish("fn");
  const { rows } = await rig.db.pool.query<{ id: string }>("select id from functions");
  const record = (more: Partial<InvocationRecord>): InvocationRecord => ({
    id: newId("inv"),
    tenantId: tenant,
    functionId: rows[0]?.id ?? "",
    versionId: "ver_1",
    acceptedAtMs: thisHourMs,
    finishedAtMs: thisHourMs + 1000,
    status: "ok",
    path: "container",
    placementReasons: [],
    phases: {},
    durationMs: 1000,
    billedMs: 1000,
    memoryMb: 512,
    cpuMs: 250,
    requestBytes: 0,
    responseBytes: 7,
    nodeId: "node_1",
    ...more,
  });
  await insertInvocations(rig.db, [
    record({}),
    record({ status: "function_timeout", path: "microvm" }),
    record({ acceptedAtMs: thisHourMs - 40 * DAY_MS }),
    record({ acceptedAtMs: thisHourMs - 2 * HOUR_MS, functionId: "fn_removed" }),
  ]);
});
after(() => rig?.stop());

type Json = Record<string, unknown>;
const admin = (): RequestInit => ({ headers: { authorization: `Bearer ${rig.adminKey}` } });
const usage = async (path: string, init?: RequestInit): Promise<Json> => {
  const response = await rig.fetch(path, init);
  const body = (await response.json()) as Json;
  assert.equal(response.status, 200, JSON.stringify(body));
  return body;
};
async function refused(path: string, status: number, detail: RegExp, init?: RequestInit) {
  const response = await rig.fetch(path, init);
  const problem = (await response.json()) as Json;
  assert.equal(response.status, status, JSON.stringify(problem));
  assert.match(String(problem.detail), detail);
  assert.ok(problem.remedy && problem.code);
}
const range = (from: number, to: number): string => `from=${at(from)}&to=${at(to)}`;
const day = range(thisHourMs - 3 * HOUR_MS, thisHourMs + HOUR_MS);

test("a tenant reads its own usage: totals, and each hour by path and status", async () => {
  const { hours, totals, ...rest } = await usage(`/v1/usage?${day}`);
  assert.deepEqual(rest, {
    tenant,
    from: at(thisHourMs - 3 * HOUR_MS),
    to: at(thisHourMs + HOUR_MS),
  });
  const { storageBytes, storageByteHours, ...used } = totals as Json;
  assert.deepEqual(used, {
    invocations: 3,
    gbSeconds: 1.5,
    cpuSeconds: 0.75,
    egressBytes: 21,
    byPath: { container: 2, microvm: 1 },
    byStatus: { ok: 2, function_timeout: 1 },
  });
  assert.ok((storageBytes as number) > 0);
  assert.ok((storageByteHours as number) >= (storageBytes as number));
  assert.deepEqual(
    (hours as Json[]).map(({ hour, invocations, gbSeconds }) => [hour, invocations, gbSeconds]),
    [
      [at(thisHourMs - 3 * HOUR_MS), 0, 0],
      [at(thisHourMs - 2 * HOUR_MS), 1, 0.5],
      [at(thisHourMs - HOUR_MS), 0, 0],
      [at(thisHourMs), 2, 1],
    ],
  );
  assert.deepEqual((hours as Json[]).at(-1)?.byStatus, { ok: 1, function_timeout: 1 });
});

test("by function: those that used most first, also one that was removed", async () => {
  const { functions } = await usage(`/v1/usage?${day}&by=function`);
  const [first, second] = functions as Json[];
  assert.deepEqual([first?.name, first?.invocations, first?.gbSeconds], ["fn", 2, 1]);
  assert.deepEqual([second?.functionId, second?.name], ["fn_removed", undefined]);
});

test("an admin reads a tenant's by id or name, also of one that is gone; others do not", async () => {
  const byId = await usage(`/admin/v1/tenants/${tenant}/usage?${day}`, admin());
  assert.deepEqual(await usage(`/admin/v1/tenants/default/usage?${day}`, admin()), byId);
  assert.deepEqual(await usage(`/v1/usage?${day}`), byId);
  await refused("/admin/v1/tenants/nobody/usage", 404, /no tenant nobody/, admin());
  await refused("/admin/v1/tenants/%00/usage", 404, /no tenant/, admin());
  await refused(`/admin/v1/tenants/${newId("ten")}/usage`, 404, /no tenant/, admin());
  await refused("/admin/v1/tenants/default/usage", 403, /scope admin/);
  const gone = await ensureTenant(rig.db, "soon-gone", "standard");
  await rig.db.pool.query(
    "insert into usage_hours values ($1, to_timestamp($2::float8 / 1000), 'fn_x', 'none', 'ok', 1, 1, 1, 1)",
    [gone.id, thisHourMs],
  );
  await rig.db.pool.query("delete from tenants where id = $1", [gone.id]);
  const left = await usage(`/admin/v1/tenants/${gone.id}/usage?${day}`, admin());
  assert.equal((left.totals as Json).invocations, 1);
  await rig.db.pool.query("delete from usage_hours where tenant_id = $1", [gone.id]);
});

test("a key sees its own tenant alone, and needs its scope", async () => {
  const other = await ensureTenant(rig.db, "others", "standard");
  const keyOf = async (scopes: Scope[]): Promise<RequestInit> => {
    const { clear } = await createKey(rig.db, other.id, "test", scopes);
    return { headers: { authorization: `Bearer ${clear}` } };
  };
  const reads = await usage(`/v1/usage?${day}`, await keyOf(["read"]));
  assert.deepEqual([reads.tenant, (reads.totals as Json).invocations], [other.id, 0]);
  await refused(`/v1/usage?${day}`, 403, /scope read/, await keyOf(["invoke"]));
  const admins = await keyOf(["admin"]);
  assert.equal((await usage("/admin/v1/tenants/others/usage", admins)).tenant, other.id);
  await refused("/admin/v1/tenants/default/usage", 404, /no tenant/, admins);
  await refused("/admin/v1/usage/reconciliation", 403, /operator/, admins);
  await refused("/v1/usage", 401, /Authorization/, { headers: { authorization: "" } });
});

test("hours come in pages, the totals are of the whole range on each", async () => {
  const path = `/v1/usage?${day}&limit=3`;
  const first = await usage(path);
  assert.equal((first.hours as Json[]).length, 3);
  const second = await usage(`${path}&after=${first.next}`);
  assert.equal((second.hours as Json[]).length, 1);
  assert.equal(second.next, undefined);
  assert.deepEqual(second.totals, first.totals);
  const whole = await usage(`/v1/usage?${day}`);
  assert.deepEqual([...(first.hours as Json[]), ...(second.hours as Json[])], whole.hours);
  assert.deepEqual((await usage(`${path}&after=${at(thisHourMs)}`)).hours, []);
});

test("CSV: a line an hour, ended as RFC 4180 wants, for whoever accepts or asks for it", async () => {
  const from = thisHourMs - 45 * DAY_MS;
  const path = `/v1/usage?${range(from, thisHourMs + HOUR_MS)}`;
  const response = await rig.fetch(path, {
    headers: { authorization: `Bearer ${rig.key}`, accept: "text/csv" },
  });
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type") ?? "", /^text\/csv; charset=utf-8/);
  assert.equal(response.headers.get("vary"), "Accept");
  const text = await response.text();
  assert.equal(await (await rig.fetch(`${path}&format=csv`)).text(), text);
  assert.ok(text.endsWith("\r\n"));
  assert.doesNotMatch(text.replaceAll("\r\n", ""), /[\r\n]/);
  const [heading, ...lines] = text.trimEnd().split("\r\n");
  const names = heading?.split(",") ?? [];
  assert.deepEqual(names.slice(0, 4), ["tenant", "hour", "invocations", "gb_seconds"]);
  assert.equal(lines.length, 45 * 24 + 1, "every hour of more than one page");
  const rows = lines.map((line) =>
    Object.fromEntries(line.split(",").map((field, index) => [names[index], field])),
  );
  assert.ok(rows.every((row) => Object.keys(row).length === names.length));
  const sum = (name: string) => rows.reduce((total, row) => total + Number(row[name]), 0);
  const { totals } = await usage(path);
  const { invocations, gbSeconds, cpuSeconds, egressBytes, storageByteHours } = totals as Json;
  assert.deepEqual(
    [sum("invocations"), sum("gb_seconds"), sum("cpu_seconds"), sum("egress_bytes")],
    [invocations, gbSeconds, cpuSeconds, egressBytes],
  );
  assert.equal(invocations, 4);
  assert.deepEqual([sum("path_microvm"), sum("status_function_timeout")], [1, 1]);
  assert.equal(sum("storage_bytes"), storageByteHours);
  assert.equal(rows[0]?.hour, at(from));
  assert.equal(rows.at(-1)?.hour, at(thisHourMs));
  const json = await rig.fetch(`${path}&format=json`, {
    headers: { authorization: `Bearer ${rig.key}`, accept: "text/csv" },
  });
  assert.match(json.headers.get("content-type") ?? "", /^application\/json/);
  const broken = await rig.fetch("/v1/usage?from=x&format=csv");
  assert.equal(broken.headers.get("content-type"), "application/problem+json");
});

test("ranges that cannot be are refused with the reason", async () => {
  const cases: [string, RegExp][] = [
    ["from=yesterday", /from.*RFC 3339/],
    ["from=2026-11-01", /from.*RFC 3339/],
    ["from=2026-13-01T00:00:00Z", /from.*RFC 3339/],
    ["from=2026-11-01T00:00:00", /from.*RFC 3339/],
    ["from=2026-11-01T10:00:00Z&to=2026-11-01T09:00:00Z", /from lies after to/],
    ["from=2026-11-01T10:10:00Z&to=2026-11-01T10:50:00Z", /the same hour/],
    [`from=${at(thisHourMs + 5 * HOUR_MS)}`, /future/],
    ["from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", /longer than 366 days/],
    ["from=0000-01-01T00:00:00Z", /longer than 366 days/],
    ["limit=0", /limit/],
    ["limit=745", /limit/],
    ["limit=1.5", /limit/],
    ["form=2026-11-01T00:00:00Z", /form/],
    ["by=tenant", /by/],
    ["format=xml", /format/],
  ];
  for (const [query, detail] of cases) await refused(`/v1/usage?${query}`, 400, detail);
});

test("a range is made of whole UTC hours, and what is left out is filled in", () => {
  const now = Date.UTC(2026, 10, 26, 3, 45, 12);
  const shown = (from?: string, to?: string) => {
    const { fromMs, toMs } = hourRange(from, to, now);
    return [at(fromMs), at(toMs)];
  };
  assert.deepEqual(shown(), ["2026-11-01T00:00:00Z", "2026-11-26T04:00:00Z"]);
  assert.deepEqual(shown("2026-11-25T10:59:59.999+05:45", "2026-11-25T12:59:00Z"), [
    "2026-11-25T05:00:00Z",
    "2026-11-25T12:00:00Z",
  ]);
  assert.deepEqual(shown("2026-11-26T03:59:00Z", "2027-01-01T00:00:00Z"), [
    "2026-11-26T03:00:00Z",
    "2026-11-26T04:00:00Z",
  ]);
  // The first moment of a month asks for the month before.
  assert.deepEqual(shown(undefined, "2026-11-01T00:30:00Z"), [
    "2026-10-01T00:00:00Z",
    "2026-11-01T00:00:00Z",
  ]);
  assert.equal(shown("2023-12-31T00:00:00Z", "2024-12-31T00:00:00Z").length, 2, "a leap year");
});

test("usage agrees with the records, and where it does not this is told", async () => {
  const path = `/admin/v1/usage/reconciliation?from=${at(thisHourMs - 50 * DAY_MS)}`;
  const agreed = await usage(path, admin());
  assert.deepEqual([agreed.records, agreed.differences], [4, []]);
  await rig.db.pool.query(
    "update usage_hours set egress_bytes = 8 where function_id = 'fn_removed'",
  );
  const { differences } = await usage(path, admin());
  const [found] = differences as { functionId: string; records: Json; usage: Json }[];
  assert.equal(found?.functionId, "fn_removed");
  assert.deepEqual([found.records.egressBytes, found.usage.egressBytes], [7, 8]);
});

test("the document describes usage, with its errors", async () => {
  const document = (await (await fetch(`${rig.url}/openapi.json`)).json()) as {
    paths: Record<string, { get: { responses: Record<string, Json> } }>;
  };
  for (const path of ["/v1/usage", "/admin/v1/tenants/{tenant}/usage"]) {
    const responses = document.paths[path]?.get.responses;
    assert.deepEqual(Object.keys((responses?.["200"]?.content as Json) ?? {}), [
      "application/json",
      "text/csv",
    ]);
    assert.ok(responses?.["400"] && responses["403"]);
  }
});
