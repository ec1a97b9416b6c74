import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { functionConfigSchema } from "#contracts/function";
import { newId } from "#contracts/ids";
import type { InvocationRecord } from "#contracts/invocation";
import { lostRecord } from "#contracts/lost-record";
import { HOUR_MS, serializeRecord } from "#contracts/usage";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { type Database, openDatabase } from "./database.ts";
import { deleteFunction, publishVersion } from "./functions.ts";
import { keepHouse } from "./housekeeping.ts";
import { insertInvocations, readInvocation, writeRecords } from "./invocations.ts";
import { runMigrations } from "./migrations.ts";
import { ensureTenant } from "./tenants.ts";
import {
  readMonthTotals,
  readUsageByFunction,
  readUsageHours,
  readUsageTotals,
  reconcileUsage,
} from "./usage.ts";

const thisHourMs = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;

const record = (tenantId: string, more: Partial<InvocationRecord> = {}): InvocationRecord => ({
  id: newId("inv"),
  tenantId,
  functionId: "fn_1",
  versionId: "ver_1",
  acceptedAtMs: thisHourMs,
  finishedAtMs: thisHourMs + 7,
  status: "ok",
  path: "container",
  placementReasons: [],
  phases: {},
  durationMs: 6.5,
  billedMs: 7,
  memoryMb: 256,
  cpuMs: 1.234,
  requestBytes: 0,
  responseBytes: 10,
  nodeId: "node_1",
  ...more,
});

const hourAt = (fromMs: number) => ({ fromMs, toMs: fromMs + HOUR_MS });

describe("usage", { timeout: 120_000 }, () => {
  let server: PostgresServer;
  let db: Database;

  before(async () => {
    server = await startPostgresServer();
    await runMigrations(server.url);
    db = openDatabase(server.url);
  });
  after(async () => {
    await db?.close();
    await server?.stop();
  });

  async function nothingDiffers(range = { fromMs: 0, toMs: 2 ** 42 }): Promise<number> {
    const { differences, records } = await reconcileUsage(db, range);
    assert.deepEqual(differences, []);
    return records;
  }

  test("a batch is counted once, however often it is written and by how many", async () => {
    const batch = Array.from({ length: 40 }, (_, index) =>
      record("ten_once", {
        status: index % 4 === 0 ? "function_error" : "ok",
        ...(index % 5 === 0 ? { path: "microvm" } : {}),
      }),
    );
    const added = await Promise.all([
      insertInvocations(db, batch),
      insertInvocations(db, [...batch].reverse()),
      insertInvocations(db, batch.slice(10, 30)),
    ]);
    assert.equal(
      added.flat().reduce((sum, { invocations }) => sum + invocations, 0),
      40,
    );
    const totals = await readUsageTotals(db, "ten_once", hourAt(thisHourMs));
    assert.deepEqual(totals, {
      invocations: 40,
      mibMs: 40 * 256 * 7,
      cpuUs: 40 * 1234,
      egressBytes: 400,
      byPath: { container: 32, microvm: 8 },
      byStatus: { ok: 30, function_error: 10 },
      storageBytes: 0,
      storageByteHours: 0,
    });
    await nothingDiffers();
  });

  test("writers that have the same records in another order never block each other for good", async () => {
    const batch = Array.from({ length: 300 }, (_, index) =>
      record("ten_many", { functionId: `fn_${index % 50}` }),
    );
    const halves = [batch, [...batch].reverse(), batch.slice(0, 150), batch.slice(150)];
    await Promise.all(
      halves.flatMap((part) => [part, part]).map((part) => insertInvocations(db, part)),
    );
    const totals = await readUsageTotals(db, "ten_many", hourAt(thisHourMs));
    assert.equal(totals.invocations, 300);
    const functions = await readUsageByFunction(db, "ten_many", hourAt(thisHourMs));
    assert.equal(functions.length, 50);
    assert.ok(
      functions.every(({ invocations, mibMs }) => invocations === 6 && mibMs === 6 * 256 * 7),
    );
    await nothingDiffers();
  });

  test("a batch that the database refuses counts nothing of it", async () => {
    const good = record("ten_refused");
    const bad = record("ten_refused", { memoryMb: 2 ** 40 });
    await assert.rejects(insertInvocations(db, [good, bad]), { code: "22003" });
    assert.equal((await readUsageTotals(db, "ten_refused", hourAt(thisHourMs))).invocations, 0);
    await insertInvocations(db, [good]);
    assert.equal((await readUsageTotals(db, "ten_refused", hourAt(thisHourMs))).invocations, 1);
    await nothingDiffers();
  });

  for (const order of ["before", "after", "together", "at the same time"] as const) {
    test(`the worker's record prevails over a loss that is written ${order}`, async () => {
      const tenant = `ten_lost_${order.replaceAll(" ", "_")}`;
      const served = record(tenant, { path: "microvm", status: "function_error" });
      const lost = lostRecord(served, "worker_lost", "gateway");
      if (order === "together") await insertInvocations(db, [lost, served]);
      else if (order === "at the same time")
        await Promise.all([insertInvocations(db, [lost]), insertInvocations(db, [served])]);
      else {
        await insertInvocations(db, [order === "before" ? lost : served]);
        await insertInvocations(db, [order === "before" ? served : lost]);
      }
      // And it stays so.
      assert.deepEqual(await insertInvocations(db, [served]), []);
      assert.deepEqual(await insertInvocations(db, [lost]), []);
      const { id } = served;
      assert.deepEqual(await readInvocation(db, tenant, id), served);
      const totals = await readUsageTotals(db, tenant, hourAt(thisHourMs));
      assert.equal(totals.invocations, 1);
      assert.equal(totals.mibMs, 256 * 7);
      assert.deepEqual(totals.byPath, { microvm: 1 });
      assert.deepEqual(totals.byStatus, { function_error: 1 });
      await nothingDiffers();
    });
  }

  test("a loss without its worker's record is an invocation that used nothing", async () => {
    const call = record("ten_gone");
    await insertInvocations(db, [lostRecord(call, "worker_lost", "gateway")]);
    const cancelled = record("ten_gone");
    await insertInvocations(db, [lostRecord(cancelled, "invocation_cancelled", "gateway")]);
    const totals = await readUsageTotals(db, "ten_gone", hourAt(thisHourMs));
    assert.deepEqual(totals.byStatus, { platform_error: 1, cancelled: 1 });
    assert.deepEqual(totals.byPath, { none: 2 });
    assert.equal(totals.mibMs, 0);
    assert.equal((await readInvocation(db, "ten_gone", call.id))?.lost, true);
    await nothingDiffers();
  });

  test("an invocation belongs to the UTC hour and month in which it was accepted, to the last ms", async () => {
    const midnight = Date.UTC(2027, 0, 1);
    const at = (acceptedAtMs: number) =>
      record("ten_edge", { acceptedAtMs, finishedAtMs: acceptedAtMs + 900_000 });
    const added = await insertInvocations(db, [
      at(midnight - HOUR_MS - 0.001),
      at(midnight - HOUR_MS),
      at(midnight - 0.001),
      at(midnight),
    ]);
    assert.deepEqual(added.map(({ month, invocations }) => [month, invocations]).sort(), [
      ["2026-12", 3],
      ["2027-01", 1],
    ]);
    const hours = await readUsageHours(db, "ten_edge", {
      fromMs: midnight - 3 * HOUR_MS,
      toMs: midnight + 2 * HOUR_MS,
    });
    assert.deepEqual(
      hours.map(({ invocations }) => invocations),
      [0, 1, 2, 1, 0],
    );
    assert.deepEqual(
      hours.map(({ hourMs }) => (hourMs - midnight) / HOUR_MS),
      [-3, -2, -1, 0, 1],
    );
    const december = await readMonthTotals(db, "2026-12", "ten_edge");
    assert.deepEqual([...december], [["ten_edge", (3 * 256 * 7) / 1_024_000]]);
    assert.equal((await readMonthTotals(db, "2027-01")).get("ten_edge"), (256 * 7) / 1_024_000);
    assert.equal((await readMonthTotals(db, "2027-02", "ten_edge")).size, 0);
    await assert.rejects(readMonthTotals(db, "2027-13"), RangeError);
    await nothingDiffers();
  });

  test("the time zone of a session moves no hour", async () => {
    const elsewhere = openDatabase(server.url, { connections: 1 });
    try {
      await elsewhere.pool.query("set time zone 'Asia/Kathmandu'");
      await insertInvocations(elsewhere, [record("ten_zone")]);
      const [hour] = await readUsageHours(elsewhere, "ten_zone", hourAt(thisHourMs));
      assert.equal(hour?.invocations, 1);
      const { differences } = await reconcileUsage(elsewhere, hourAt(thisHourMs));
      assert.deepEqual(differences, []);
    } finally {
      await elsewhere.close();
    }
  });

  test("records that waited long or come of a clock that was wrong count in their own hour", async () => {
    const late = record("ten_late", { acceptedAtMs: thisHourMs - 50 * HOUR_MS });
    const early = record("ten_late", { acceptedAtMs: thisHourMs + 50 * HOUR_MS });
    const backwards = record("ten_late", {
      acceptedAtMs: thisHourMs,
      finishedAtMs: thisHourMs - 5,
    });
    await insertInvocations(db, [late, early, backwards]);
    for (const one of [late, early, backwards])
      assert.equal(
        (await readUsageTotals(db, "ten_late", hourAt(one.acceptedAtMs))).invocations,
        1,
      );
    await nothingDiffers();
  });

  test("usage outlives the records, and what was dropped is not counted again", async () => {
    const old = record("ten_old", { acceptedAtMs: thisHourMs - 40 * 24 * HOUR_MS });
    const kept = record("ten_old", { acceptedAtMs: thisHourMs - 3 * 24 * HOUR_MS });
    await insertInvocations(db, [old, kept]);
    await keepHouse(db, { days: 7, graceMs: HOUR_MS });
    assert.equal(await readInvocation(db, "ten_old", old.id), undefined);
    assert.deepEqual(await insertInvocations(db, [old]), []);
    const range = { fromMs: thisHourMs - 60 * 24 * HOUR_MS, toMs: thisHourMs + HOUR_MS };
    assert.equal((await readUsageTotals(db, "ten_old", range)).invocations, 2);
    const { range: looked, differences } = await reconcileUsage(db, range);
    assert.deepEqual(differences, []);
    assert.ok(looked.fromMs > range.fromMs, "hours without records are not compared");
  });

  test("what does not agree is found", async () => {
    await insertInvocations(db, [record("ten_wrong")]);
    await db.pool.query("update usage_hours set mib_ms = mib_ms + 1 where tenant_id = 'ten_wrong'");
    const { differences } = await reconcileUsage(db, hourAt(thisHourMs));
    assert.equal(differences.length, 1);
    const [found] = differences;
    assert.equal(found?.tenantId, "ten_wrong");
    assert.equal(found?.hourMs, thisHourMs);
    assert.equal((found?.usage.mibMs ?? 0) - (found?.records.mibMs ?? 0), 1);
    await db.pool.query("update usage_hours set mib_ms = mib_ms - 1 where tenant_id = 'ten_wrong'");
    await db.pool.query("delete from invocations where tenant_id = 'ten_wrong'");
    assert.equal((await reconcileUsage(db, hourAt(thisHourMs))).differences.length, 1);
    await db.pool.query("delete from usage_hours where tenant_id = 'ten_wrong'");
  });

  test("what a statement is given twice is written once", async () => {
    const one = serializeRecord(record("ten_twice"));
    await writeRecords(db, [one, one]);
    assert.equal((await readUsageTotals(db, "ten_twice", hourAt(thisHourMs))).invocations, 1);
  });

  describe("storage", () => {
    const publish = (tenant: string, name: string, text: string) => {
      const content = Buffer.from(text);
      const digest = createHash("sha256").update(content).digest("hex");
      const config = functionConfigSchema.parse({ name });
      return publishVersion(db, tenant, config, { digest, content, unpackedBytes: 1 });
    };
    const stored = async (tenant: string) => {
      const hours = { fromMs: thisHourMs - HOUR_MS, toMs: thisHourMs + 2 * HOUR_MS };
      const { storageBytes } = await readUsageTotals(db, tenant, hours);
      return storageBytes;
    };

    test("each bundle of a tenant's live versions counts once, also for another tenant", async () => {
      const one = (await ensureTenant(db, "storing", "standard")).id;
      const other = (await ensureTenant(db, "storing-too", "standard")).id;
      await publish(one, "a", "x".repeat(100));
      await publish(one, "a", "y".repeat(10));
      await publish(one, "b", "x".repeat(100));
      await publish(other, "a", "x".repeat(100));
      assert.deepEqual([await stored(one), await stored(other)], [110, 100]);
      await deleteFunction(db, one, "b");
      assert.equal(await stored(one), 110, "another function still has that bundle");
      await deleteFunction(db, one, "a");
      assert.equal(await stored(one), 0);
      const hours = await readUsageHours(db, one, {
        fromMs: thisHourMs - HOUR_MS,
        toMs: thisHourMs + 2 * HOUR_MS,
      });
      // The test may cross an hour: what counts is the most of each.
      assert.equal(Math.max(...hours.map(({ storageBytes }) => storageBytes)), 110);
      assert.equal(hours[0]?.storageBytes, 0);
    });

    test("publications at the same time are all counted", async () => {
      const tenant = (await ensureTenant(db, "storing-fast", "standard")).id;
      await Promise.all(
        Array.from({ length: 12 }, (_, index) =>
          publish(tenant, `f${index}`, `${index}`.padEnd(50)),
        ),
      );
      assert.equal(await stored(tenant), 600);
      await db.pool.query("delete from tenants where id = $1", [tenant]);
      assert.equal(await stored(tenant), 0);
    });

    test("between changes it stays, hour by hour", async () => {
      const rows: [number, number, number][] = [
        [-5, 300, 200],
        [-2, 200, 50],
      ];
      for (const [hour, peak, end] of rows)
        await db.pool.query(
          "insert into usage_storage values ('ten_stays', to_timestamp($1::float8 / 1000), $2, $3)",
          [thisHourMs + hour * HOUR_MS, peak, end],
        );
      const of = async (from: number, to: number) => {
        const range = { fromMs: thisHourMs + from * HOUR_MS, toMs: thisHourMs + to * HOUR_MS };
        const totals = await readUsageTotals(db, "ten_stays", range);
        const hours = await readUsageHours(db, "ten_stays", range);
        const bytes = hours.map(({ storageBytes }) => storageBytes);
        assert.equal(
          totals.storageByteHours,
          bytes.reduce((sum, one) => sum + one, 0),
        );
        return { bytes, end: totals.storageBytes };
      };
      assert.deepEqual(await of(-7, 0), { bytes: [0, 0, 300, 200, 200, 200, 50], end: 50 });
      assert.deepEqual(await of(-4, -2), { bytes: [200, 200], end: 200 });
      assert.deepEqual(await of(-1, 1), { bytes: [50, 50], end: 50 });
      assert.deepEqual(await of(-7, -5), { bytes: [0, 0], end: 0 });
    });

    test("a clock that is set back does not put the new before the old", async () => {
      const tenant = (await ensureTenant(db, "storing-back", "standard")).id;
      const ahead = thisHourMs + 5 * HOUR_MS;
      await db.pool.query(
        "insert into usage_storage values ($1, to_timestamp($2::float8 / 1000), 9, 9)",
        [tenant, ahead],
      );
      await publish(tenant, "f", "12345");
      const hours = await readUsageHours(db, tenant, { fromMs: ahead, toMs: ahead + 2 * HOUR_MS });
      assert.deepEqual(
        hours.map(({ storageBytes }) => storageBytes),
        [9, 5],
      );
    });
  });
});
