import type { Database } from "./database.ts";
import { PARTITION_DAYS_AHEAD } from "./migrations.ts";

export interface Retention {
  /** Days that records and logs are kept. */
  days: number;
  /** How long a deleted function's versions and an unused bundle stay, for calls that are under way, ms. */
  graceMs: number;
}

/** Makes the partitions of the next days and removes what is past its time. Safe to run in several processes at once. */
export async function keepHouse(db: Database, { days, graceMs }: Retention): Promise<void> {
  await db.pool.query("select ensure_partitions($1)", [PARTITION_DAYS_AHEAD]);
  await db.pool.query("select drop_old_partitions($1)", [days]);
  const grace = graceMs / 1000;
  await db.pool.query(
    "delete from functions where deleted_at < now() - make_interval(secs => $1)",
    [grace],
  );
  await db.pool.query(
    `delete from bundles where touched_at < now() - make_interval(secs => $1)
       and not exists (select from versions where bundle_digest = digest)`,
    [grace],
  );
}

/** Rejects when the database cannot be used. */
export async function pingDatabase(db: Database): Promise<void> {
  await db.pool.query("select 1");
}
