import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import pg from "pg";

const FOLDER = resolve(import.meta.dirname, "../../../migrations");
/** Any number that nobody else uses: two processes that start at once migrate one after the other. */
const LOCK = 7_105_110_019;
/** Partitions are made this many days ahead, so that a service that cannot make new ones for a while loses nothing. */
export const PARTITION_DAYS_AHEAD = 7;

interface Migration {
  name: string;
  sql: string;
  digest: string;
}

/** The SQL files of migrations/, in order of their numbers. */
export function readMigrations(folder: string = FOLDER): Migration[] {
  return readdirSync(folder)
    .filter((name) => /^\d{4}_[a-z0-9_]+\.sql$/.test(name))
    .sort()
    .map((name) => {
      const sql = readFileSync(join(folder, name), "utf8");
      return { name, sql, digest: createHash("sha256").update(sql).digest("hex") };
    });
}

/**
 * Brings the database up to date, each file in a transaction of its own, and makes the partitions of the next days. Gives the names of
 * what was applied. Throws when an applied file has changed since, or the database is of a newer version.
 */
export async function runMigrations(url: string, folder?: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    await client.query("select pg_advisory_lock($1)", [LOCK]);
    await client.query(
      "create table if not exists migrations (name text primary key, digest text not null, applied_at timestamptz not null default now())",
    );
    const { rows } = await client.query<{ name: string; digest: string }>(
      "select name, digest from migrations",
    );
    const known = new Map(rows.map(({ name, digest }) => [name, digest]));
    const migrations = readMigrations(folder);
    const names = new Set(migrations.map(({ name }) => name));
    const newer = [...known.keys()].find((name) => !names.has(name));
    if (newer !== undefined)
      throw new Error(`The database is of a newer version: it has had ${newer}.`);
    const applied: string[] = [];
    for (const { name, sql, digest } of migrations) {
      const before = known.get(name);
      if (before === digest) continue;
      if (before !== undefined)
        throw new Error(`${name} has changed since the database had it; add a new file instead.`);
      await apply(client, name, sql, digest);
      applied.push(name);
    }
    await client.query("select ensure_partitions($1)", [PARTITION_DAYS_AHEAD]);
    return applied;
  } finally {
    // The session's end gives the lock back.
    await client.end();
  }
}

async function apply(client: pg.Client, name: string, sql: string, digest: string): Promise<void> {
  await client.query("begin");
  try {
    await client.query(sql);
    await client.query("insert into migrations (name, digest) values ($1, $2)", [name, digest]);
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw new Error(`${name}: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}
