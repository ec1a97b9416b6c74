import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Database, openDatabase } from "#db/database";
import { runMigrations } from "#db/migrations";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { openWorkerDatabase } from "../database.ts";
import type { WorkerDatabase } from "../worker-service.ts";
import { HouseKeeper } from "./house-keeper.ts";

let postgres: PostgresServer;
let db: Database;
let database: WorkerDatabase;
before(async () => {
  postgres = await startPostgresServer();
  await runMigrations(postgres.url);
  db = openDatabase(postgres.url, { connections: 2 });
  database = openWorkerDatabase(postgres.url);
});
after(async () => {
  await database?.close();
  await db?.close();
  await postgres?.stop();
});

const OLD = "function_logs_20200101";
const addOld = () =>
  db.pool.query(
    `create table ${OLD} partition of function_logs for values from ('2020-01-01 00:00:00+00') to ('2020-01-02 00:00:00+00')`,
  );
async function there(table: string): Promise<boolean> {
  const { rows } = await db.pool.query("select to_regclass($1) is not null as there", [table]);
  return rows[0].there;
}
const partitionOf = (days: number): string => {
  const day = new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10);
  return `invocations_${day.replaceAll("-", "")}`;
};

test("old partitions go and missing ones are made, at the start and again", async () => {
  const twice = Promise.withResolvers<void>();
  let kept = 0;
  await addOld();
  const missing = partitionOf(5);
  await db.pool.query(`drop table ${missing}`);
  const keeper = new HouseKeeper({
    keepHouse: async () => {
      const done = await database.keepHouse(40);
      if (++kept === 1) {
        assert.equal(await there(OLD), false);
        assert.equal(await there(missing), true);
        await addOld();
      } else twice.resolve();
      return done;
    },
    onProblem: (error) => twice.reject(error),
    everyMs: 10,
  });
  keeper.start();
  await twice.promise;
  await keeper.stop();
  assert.equal(await there(OLD), false);
});

test("trouble is told, and the worker goes on; what is recent stays", async () => {
  const problems: string[] = [];
  const keeper = new HouseKeeper({
    keepHouse: () => database.keepHouse(40),
    onProblem: (error) => problems.push(error.message),
  });
  await db.pool.query("alter function drop_old_partitions(integer) rename to not_there");
  keeper.start();
  await keeper.stop();
  await db.pool.query("alter function not_there(integer) rename to drop_old_partitions");
  assert.deepEqual(problems, ["function drop_old_partitions(unknown) does not exist"]);
  // The session that failed has not kept the lock.
  assert.equal(await database.keepHouse(40), true);
  assert.equal(await there(partitionOf(0)), true);
});
