import type { LogEntry } from "#contracts/invocation";
import type { Database } from "./database.ts";

/** Writes many lines by one statement, in their order. */
export async function insertLogs(db: Database, entries: LogEntry[]): Promise<void> {
  if (entries.length === 0) return;
  await db.pool.query(
    `insert into function_logs (tenant_id, function_id, invocation_id, version, at, stream, text)
     select tenant, function, invocation, version, to_timestamp(ms / 1000), stream, text
     from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::float8[], $6::text[], $7::text[])
       with ordinality as line (tenant, function, invocation, version, ms, stream, text, place)
     order by place`,
    [
      entries.map((entry) => entry.tenantId),
      entries.map((entry) => entry.functionId),
      entries.map((entry) => entry.invocationId ?? null),
      entries.map((entry) => entry.version),
      entries.map((entry) => entry.atMs),
      entries.map((entry) => entry.stream),
      entries.map((entry) => entry.text),
    ],
  );
}

export interface LogQuery {
  /** The newest so many, given oldest first. */
  limit: number;
  sinceMs?: number;
  invocationId?: string;
  /** Texts beyond this many bytes together are left out, the oldest first: an answer has a bound. */
  maxBytes?: number;
}

const MAX_BYTES = 8 * 1024 * 1024;

/** A function's stored lines, oldest first. */
export async function readLogs(
  db: Database,
  functionId: string,
  query: LogQuery,
): Promise<LogEntry[]> {
  const { rows } = await db.pool.query<{
    tenant_id: string;
    invocation_id: string | null;
    version: number;
    ms: number;
    stream: LogEntry["stream"];
    text: string;
  }>(
    `select tenant_id, invocation_id, version, (extract(epoch from at) * 1000)::float8 as ms, stream, text from (
       select *, sum(octet_length(text)) over (order by at desc, seq desc) as bytes from (
         select * from function_logs
         where function_id = $1 and at >= to_timestamp($2::float8 / 1000) and ($3::text is null or invocation_id = $3)
         order by at desc, seq desc limit $4
       ) as newest
     ) as summed where bytes <= $5 order by at, seq`,
    [
      functionId,
      query.sinceMs ?? 0,
      query.invocationId ?? null,
      query.limit,
      query.maxBytes ?? MAX_BYTES,
    ],
  );
  return rows.map((row) => ({
    tenantId: row.tenant_id,
    functionId,
    ...(row.invocation_id === null ? {} : { invocationId: row.invocation_id }),
    version: row.version,
    atMs: row.ms,
    stream: row.stream,
    text: row.text,
  }));
}
