import type pg from "pg";
import type { Database } from "./database.ts";
import { PARTITION_DAYS_AHEAD } from "./migrations.ts";

export interface Retention {
  /** Days that records and logs are kept. */
  days: number;
  /** How long a deleted function's versions and an unused bundle stay, for calls that are under way, ms. */
  graceMs: number;
}

/** Any number that nobody else uses. */
const LOCK = 7_105_110_020;

/**
 * Makes the partitions of the next days and removes what is past its time. False when another process is at it, and nothing was done. Rejects when
 * the database cannot be used.
 */
export async function keepHouse(db: Database, { days, graceMs }: Retention): Promise<boolean> {
  // The lock belongs to a session, so all of it is done in one.
  const client = await db.pool.connect();
  let broken: Error | undefined;
  try {
    if (!(await lock(client))) return false;
    await client.query("select ensure_partitions($1)", [PARTITION_DAYS_AHEAD]);
    await client.query("select drop_old_partitions($1)", [days]);
    const grace = graceMs / 1000;
    await client.query(
      "delete from functions where deleted_at < now() - make_interval(secs => $1)",
      [grace],
    );
    await client.query(
      `delete from bundles where touched_at < now() - make_interval(secs => $1)
         and not exists (select from versions where bundle_digest = digest)`,
      [grace],
    );
    await client.query("select pg_advisory_unlock($1)", [LOCK]);
    return true;
  } catch (error) {
    broken = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    // A session that failed is ended rather than used again: its end gives the lock back, whatever became of it.
    client.release(broken);
  }
}

async function lock(client: pg.PoolClient): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>(
    "select pg_try_advisory_lock($1) as locked",
    [LOCK],
  );
  return rows[0]?.locked === true;
}

/** Rejects when the database cannot be used. */
export async function pingDatabase(db: Database): Promise<void> {
  await db.pool.query("select 1");
}
