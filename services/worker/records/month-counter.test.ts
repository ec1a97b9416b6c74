import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { newId } from "#contracts/ids";
import type { InvocationRecord } from "#contracts/invocation";
import { monthOf } from "#contracts/quota";
import { serializeRecord } from "#contracts/usage";
import { type Database, openDatabase } from "#db/database";
import { writeRecords } from "#db/invocations";
import { runMigrations } from "#db/migrations";
import { readMonthTotals } from "#db/usage";
import { QuotaCounters } from "#queue/quota-counters";
import { connectRedis, disconnectRedis, type Redis } from "#queue/redis";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { MonthCounter } from "./month-counter.ts";

const month = monthOf(Date.now());
let postgres: PostgresServer;
let server: RedisServer;
let db: Database;
let redis: Redis;
let counter: MonthCounter;
const problems: Error[] = [];

before(async () => {
  [postgres, server] = await Promise.all([startPostgresServer(), startRedisServer()]);
  await runMigrations(postgres.url);
  db = openDatabase(postgres.url, { connections: 2 });
  redis = connectRedis(server.url, "request");
  counter = new MonthCounter({
    counters: new QuotaCounters(redis),
    readMonthTotals: (of, tenantId) => readMonthTotals(db, of, tenantId),
    onProblem: (error) => problems.push(error),
  });
});
after(async () => {
  await disconnectRedis(redis);
  await db.close();
  await Promise.all([server.stop(), postgres.stop()]);
});

/** A record of 1 GB-second. */
const record = (tenantId: string, more: Partial<InvocationRecord> = {}) =>
  serializeRecord({
    id: newId("inv"),
    tenantId,
    functionId: "fn_1",
    versionId: "ver_1",
    acceptedAtMs: Date.now(),
    finishedAtMs: Date.now(),
    status: "ok",
    path: "container",
    placementReasons: [],
    phases: {},
    durationMs: 1000,
    billedMs: 1000,
    memoryMb: 1024,
    requestBytes: 0,
    responseBytes: 0,
    nodeId: "node_1",
    ...more,
  });
const known = async (tenantId: string, of = month): Promise<number | undefined> => {
  const nano = await redis.hget(`cloister:quota:{${tenantId}}:months`, of);
  return nano === null ? undefined : Number(nano) / 1e9;
};
const learned = (tenantId: string, of = month): Promise<void> =>
  new QuotaCounters(redis).raiseMonth(tenantId, of, 0);

test("what is recorded reaches the quota's month, once, by tenant and month", async () => {
  await Promise.all([learned("ten_a"), learned("ten_b"), learned("ten_a", "2026-01")]);
  const batch = [
    record("ten_a"),
    record("ten_a", { status: "function_error" }),
    record("ten_b"),
    record("ten_a", { acceptedAtMs: Date.UTC(2026, 1, 1) - 1 }),
  ];
  await counter.recorded(await writeRecords(db, batch));
  // The answer to the first was lost.
  await counter.recorded(await writeRecords(db, batch));
  assert.deepEqual(
    [await known("ten_a"), await known("ten_b"), await known("ten_a", "2026-01")],
    [2, 1, 1],
  );
});

test("a month that Redis does not know stays so until somebody asks for it", async () => {
  await counter.recorded(await writeRecords(db, [record("ten_new")]));
  assert.equal(await known("ten_new"), undefined);
});

test("what a killed worker had recorded without telling the quota is made up for, and no more", async () => {
  await learned("ten_killed");
  const told = record("ten_killed");
  await counter.recorded(await writeRecords(db, [told]));
  // Killed here, after the database had the second and before the third was written.
  const untold = record("ten_killed");
  await writeRecords(db, [untold]);
  const unwritten = record("ten_killed");
  const left = [told, untold, unwritten];
  await counter.takenOver(left);
  assert.equal(await known("ten_killed"), 2);
  await counter.recorded(await writeRecords(db, left));
  assert.equal(await known("ten_killed"), 3);
  assert.deepEqual(problems, []);
});

test("what could not be told while Redis was away is made up for by the next batch", async () => {
  await learned("ten_away");
  const away = connectRedis("unix:/nowhere/redis.sock", "request");
  let counters = new QuotaCounters(away);
  const one = new MonthCounter({
    counters: {
      addGbSeconds: (...args) => counters.addGbSeconds(...args),
      raiseMonth: (...args) => counters.raiseMonth(...args),
    },
    readMonthTotals: (of, tenantId) => readMonthTotals(db, of, tenantId),
    onProblem: (error) => problems.push(error),
  });
  await one.recorded(await writeRecords(db, [record("ten_away")]));
  assert.equal(problems.length, 1);
  assert.equal(await known("ten_away"), 0);
  counters = new QuotaCounters(redis);
  await one.recorded(await writeRecords(db, [record("ten_away")]));
  assert.equal(await known("ten_away"), 2);
  await one.recorded(await writeRecords(db, [record("ten_away")]));
  assert.equal(await known("ten_away"), 3);
  away.disconnect();
});
