import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { getTableConfig } from "drizzle-orm/pg-core";
import { functionConfigSchema } from "#contracts/function";
import { newId } from "#contracts/ids";
import type { InvocationRecord } from "#contracts/invocation";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { bootstrap } from "./bootstrap.ts";
import { type Database, openDatabase } from "./database.ts";
import {
  deleteFunction,
  listFunctions,
  listVersions,
  publishVersion,
  readBundle,
  readFunction,
  readVersion,
  resolveFunction,
} from "./functions.ts";
import { keepHouse } from "./housekeeping.ts";
import { insertInvocations, readInvocation } from "./invocations.ts";
import { matchSecret, parseKey, readKey, touchKeys } from "./keys.ts";
import { insertLogs, readLogs } from "./logs.ts";
import { runMigrations } from "./migrations.ts";
import * as schema from "./schema.ts";
import { ensureTenant, tenantByName } from "./tenants.ts";

describe("the database", { timeout: 120_000 }, () => {
  let server: PostgresServer;
  let db: Database;
  let tenantId: string;

  before(async () => {
    server = await startPostgresServer();
    await Promise.all([runMigrations(server.url), runMigrations(server.url)]);
    db = openDatabase(server.url);
    tenantId = (await ensureTenant(db, "default", "trusted")).id;
  });
  after(async () => {
    await db?.close();
    await server?.stop();
  });

  const publish = (name: string, text: string, tenant = tenantId) => {
    const content = Buffer.from(text);
    const digest = createHash("sha256").update(content).digest("hex");
    const config = functionConfigSchema.parse({ name });
    return publishVersion(db, tenant, config, { digest, content, unpackedBytes: 10 });
  };

  test("migrations are applied once, and the schema is what they made", async () => {
    assert.deepEqual(await runMigrations(server.url), []);
    for (const table of Object.values(schema)) {
      if (typeof table !== "object" || Array.isArray(table)) continue;
      const { name, columns } = getTableConfig(table as typeof schema.tenants);
      const { rows } = await db.pool.query<{ name: string; type: string; required: boolean }>(
        `select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as required
         from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attname`,
        [name],
      );
      const declared = columns.map((column) => ({
        name: column.name,
        type: column.getSQLType(),
        required: column.notNull,
      }));
      assert.deepEqual(
        declared.sort((a, b) => (a.name < b.name ? -1 : 1)),
        rows.sort((a, b) => (a.name < b.name ? -1 : 1)),
        name,
      );
    }
  });

  test("the first keys work, and nothing stored gives them away", async () => {
    const keys = await bootstrap(db);
    for (const [clear, scopes] of [
      [keys.key, ["invoke", "deploy", "read"]],
      [keys.adminKey, ["invoke", "deploy", "read", "admin"]],
    ] as const) {
      const parsed = parseKey(clear);
      assert.ok(parsed);
      const record = await readKey(db, parsed.id);
      assert.ok(record);
      assert.deepEqual(record.scopes, scopes);
      assert.equal(record.tier, "trusted");
      assert.equal(matchSecret(record, parsed.secret), "current");
      assert.equal(matchSecret(record, `${parsed.secret.slice(1)}A`), undefined);
      const { rows } = await db.pool.query("select api_keys::text as row from api_keys");
      assert.ok(rows.every(({ row }) => !row.includes(parsed.secret)));
    }
    const id = parseKey(keys.key)?.id ?? "";
    await touchKeys(db, new Map([[id, 1_790_000_000_000]]));
    const { rows } = await db.pool.query("select last_used_at from api_keys where id = $1", [id]);
    assert.equal(rows[0].last_used_at.getTime(), 1_790_000_000_000);
  });

  test("publications at the same time get different numbers", async () => {
    const published = await Promise.all(
      Array.from({ length: 8 }, (_, index) => publish("many", `bundle ${index % 2}`)),
    );
    assert.deepEqual(
      published.map(({ version }) => version).sort((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    const current = await readFunction(db, tenantId, "many");
    assert.equal(current?.version, 8);
    assert.equal((await listVersions(db, current?.id ?? "", 100)).length, 8);
    const third = await resolveFunction(db, tenantId, "many", 3);
    assert.equal(third?.version, 3);
    assert.equal((await readVersion(db, third?.versionId ?? ""))?.name, "many");
    assert.equal(await resolveFunction(db, tenantId, "many", 9), undefined);
  });

  test("a version cannot be changed", async () => {
    await publish("fixed", "x");
    await assert.rejects(db.pool.query("update versions set number = 9"), /immutable/);
  });

  test("a tenant sees its own functions, page by page", async () => {
    const other = await ensureTenant(db, "other", "standard");
    await publish("theirs", "y", other.id);
    for (const name of ["page-a", "page-b", "page-c"]) await publish(name, "z");
    assert.equal(await readFunction(db, tenantId, "theirs"), undefined);
    assert.equal(await resolveFunction(db, tenantId, "theirs"), undefined);
    const first = await listFunctions(db, tenantId, 2, "page-");
    assert.deepEqual(
      first.map(({ name }) => name),
      ["page-a", "page-b"],
    );
    const rest = await listFunctions(db, tenantId, 2, "page-b");
    assert.deepEqual(
      rest.map(({ name }) => name),
      ["page-c"],
    );
    assert.equal((await tenantByName(db, "other"))?.tier, "standard");
  });

  test("a deleted function's name is free, its bundle goes when nothing uses it", async () => {
    const { versionId, digest } = await publish("brief", "only here");
    assert.ok(await deleteFunction(db, tenantId, "brief"));
    assert.equal(await deleteFunction(db, tenantId, "brief"), undefined);
    assert.equal(await readFunction(db, tenantId, "brief"), undefined);
    assert.ok(await readVersion(db, versionId), "calls under way still find it");
    await keepHouse(db, { days: 7, graceMs: 3_600_000 });
    assert.equal((await readBundle(db, digest))?.toString(), "only here");
    const again = await publish("brief", "another");
    assert.equal(again.version, 1);
    await keepHouse(db, { days: 7, graceMs: 0 });
    assert.equal(await readVersion(db, versionId), undefined);
    assert.equal(await readBundle(db, digest), undefined);
    assert.ok(await readVersion(db, again.versionId));
  });

  const record = (acceptedAtMs: number): InvocationRecord => ({
    id: newId("inv"),
    tenantId,
    functionId: "fn_1",
    versionId: "ver_1",
    acceptedAtMs,
    finishedAtMs: acceptedAtMs + 5,
    status: "ok",
    httpStatus: 200,
    path: "container",
    start: "warm",
    placementReasons: ["because", "it is"],
    phases: { queue_ms: 1.5 },
    durationMs: 4.25,
    billedMs: 5,
    memoryMb: 256,
    cpuMs: 1.5,
    memoryPeakBytes: 2 ** 40,
    requestBytes: 0,
    responseBytes: 12,
    nodeId: "node_1",
  });

  test("records come back as they went in, to their own tenant alone", async () => {
    const work = {
      exits: { syscall: 2 ** 40, fault: 1, interrupted: 0, page_unavailable: 0 },
      syscalls: { write: 2, other: 1 },
      pageFaults: 3,
      guestMs: 1.25,
      monitorMs: 0.5,
      placementRules: ["caller-microvm", "node-offers"],
      placementTable: "1",
    };
    const records = [record(Date.now()), { ...record(Date.now() + 1), ...work }];
    await insertInvocations(db, records);
    await insertInvocations(db, records);
    for (const one of records) {
      assert.deepEqual(await readInvocation(db, tenantId, one.id), one);
      assert.equal(await readInvocation(db, "ten_other", one.id), undefined);
    }
    const { rows } = await db.pool.query(
      "select distinct tableoid::regclass::text as name from invocations",
    );
    assert.match(rows[0].name, /^invocations_\d{8}$/);
  });

  test("old days go as a whole, also those without a partition", async () => {
    const old = record(Date.now() - 30 * 86_400_000);
    await insertInvocations(db, [old]);
    await db.pool.query(
      "create table invocations_20200101 partition of invocations for values from ('2020-01-01 00:00:00+00') to ('2020-01-02 00:00:00+00')",
    );
    await keepHouse(db, { days: 7, graceMs: 3_600_000 });
    const { rows } = await db.pool.query(
      "select to_regclass('invocations_20200101') as gone, (select count(*)::int from invocations where id = $1) as left",
      [old.id],
    );
    assert.deepEqual(rows[0], { gone: null, left: 0 });
  });

  test("one process at a time keeps house; the others do nothing and say so", async () => {
    const busy = await db.pool.connect();
    await busy.query("select pg_advisory_lock(7105110020)");
    await db.pool.query(
      "create table invocations_20200103 partition of invocations for values from ('2020-01-03 00:00:00+00') to ('2020-01-04 00:00:00+00')",
    );
    const left = async () =>
      (await db.pool.query("select to_regclass('invocations_20200103') is not null as left"))
        .rows[0].left;
    assert.equal(await keepHouse(db, { days: 7, graceMs: 3_600_000 }), false);
    assert.equal(await left(), true);
    await busy.query("select pg_advisory_unlock(7105110020)");
    busy.release();
    const both = [keepHouse, keepHouse].map((keep) => keep(db, { days: 7, graceMs: 3_600_000 }));
    assert.ok((await Promise.all(both)).includes(true));
    assert.equal(await left(), false);
    // Whoever held the lock has given it back.
    assert.equal(await keepHouse(db, { days: 7, graceMs: 3_600_000 }), true);
  });

  test("log lines keep their order, the newest of them, within a number of bytes", async () => {
    const atMs = Date.now();
    const line = (text: string, invocationId?: string) => ({
      tenantId,
      functionId: "fn_logs",
      ...(invocationId ? { invocationId } : {}),
      version: 1,
      atMs,
      stream: "stdout" as const,
      text,
    });
    await insertLogs(db, [line("one"), line("two", "inv_x"), line("three")]);
    const texts = async (query: Parameters<typeof readLogs>[2]) =>
      (await readLogs(db, "fn_logs", query)).map(({ text }) => text);
    assert.deepEqual(await texts({ limit: 10 }), ["one", "two", "three"]);
    assert.deepEqual(await texts({ limit: 2 }), ["two", "three"]);
    assert.deepEqual(await texts({ limit: 10, invocationId: "inv_x" }), ["two"]);
    assert.deepEqual(await texts({ limit: 10, maxBytes: 8 }), ["two", "three"]);
    assert.deepEqual(await texts({ limit: 10, sinceMs: atMs + 1000 }), []);
  });
});
