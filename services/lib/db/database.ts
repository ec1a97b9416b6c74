import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import pg from "pg";

/** A pool of connections and drizzle on top of it. */
export interface Database {
  pool: pg.Pool;
  orm: NodePgDatabase;
  close(): Promise<void>;
}

/** What a transaction's statements run on. */
export type Transaction = Parameters<Parameters<NodePgDatabase["transaction"]>[0]>[0];

export interface DatabaseOptions {
  /** Connections at most. */
  connections?: number;
  /** Hears of connections that broke while nobody used them. */
  onError?: (error: Error) => void;
}

/** A server that does not let us in or answer within these is away, ms. */
const CONNECT_BOUND_MS = 5000;
const STATEMENT_BOUND_MS = 30_000;

/** Opens no connection yet. Queries reject with pg's errors, whose `code` is a SQLSTATE when the server refused. */
export function openDatabase(url: string, options: DatabaseOptions = {}): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: options.connections ?? 10,
    connectionTimeoutMillis: CONNECT_BOUND_MS,
    statement_timeout: STATEMENT_BOUND_MS,
    // The server may be frozen rather than slow: the client has a bound of its own.
    query_timeout: STATEMENT_BOUND_MS + 5000,
    idleTimeoutMillis: 60_000,
    application_name: "cloister",
  });
  pool.on("error", options.onError ?? (() => {}));
  return { pool, orm: drizzle(pool), close: () => pool.end() };
}
