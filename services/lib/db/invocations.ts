import { and, eq, gt, lt } from "drizzle-orm";
import type { Path, StartKind } from "#contracts/function";
import type { InvocationRecord, InvocationStatus } from "#contracts/invocation";
import { type RecordedUsage, type SerializedRecord, serializeRecord } from "#contracts/usage";
import type { Database } from "./database.ts";
import { invocations } from "./schema.ts";

/** Columns of `invocations` and how a record's JSON fills them. */
const COLUMNS: [name: string, value: string][] = [
  ["id", "r.id"],
  ["tenant_id", 'r."tenantId"'],
  ["function_id", 'r."functionId"'],
  ["version_id", 'r."versionId"'],
  ["accepted_at", 'to_timestamp(r."acceptedAtMs" / 1000)'],
  ["finished_at", 'to_timestamp(r."finishedAtMs" / 1000)'],
  ["status", "r.status"],
  ["http_status", 'r."httpStatus"'],
  ["error_code", 'r."errorCode"'],
  ["path", "r.path"],
  ["start", "r.start"],
  ["placement_reasons", `coalesce(r."placementReasons", '{}')`],
  ["phases", "r.phases"],
  ["duration_ms", 'r."durationMs"'],
  ["billed_ms", 'r."billedMs"'],
  ["memory_mb", 'r."memoryMb"'],
  ["cpu_ms", 'r."cpuMs"'],
  ["memory_peak_bytes", 'r."memoryPeakBytes"'],
  ["request_bytes", 'r."requestBytes"'],
  ["response_bytes", 'r."responseBytes"'],
  ["sandbox_id", 'r."sandboxId"'],
  ["node_id", 'r."nodeId"'],
  ["exits", "r.exits"],
  ["syscalls", "r.syscalls"],
  ["page_faults", 'r."pageFaults"'],
  ["guest_ms", 'r."guestMs"'],
  ["monitor_ms", 'r."monitorMs"'],
  ["lost", "coalesce(r.lost, false)"],
  ["placement_rules", 'r."placementRules"'],
  ["placement_table", 'r."placementTable"'],
];
const names = COLUMNS.map(([name]) => name);
const replaceable = names.filter((name) => name !== "id" && name !== "accepted_at");

/**
 * One statement, so one transaction: what it writes to `invocations` it adds to `usage_hours`, and a record that is there already adds
 * nothing. Rows of usage are taken in the order of their keys, so that two writers never wait for each other in a circle.
 */
const WRITE = `
with written as (
  insert into invocations (${names.join(", ")})
  select ${COLUMNS.map(([, value]) => value).join(", ")}
  from json_to_recordset($1::json) as r (
    id text, "tenantId" text, "functionId" text, "versionId" text, "acceptedAtMs" float8, "finishedAtMs" float8,
    status text, "httpStatus" smallint, "errorCode" text, path text, start text, "placementReasons" text[],
    phases jsonb, "durationMs" float8, "billedMs" float8, "memoryMb" integer, "cpuMs" float8,
    "memoryPeakBytes" bigint, "requestBytes" bigint, "responseBytes" bigint, "sandboxId" text, "nodeId" text,
    exits jsonb, syscalls jsonb, "pageFaults" bigint, "guestMs" float8, "monitorMs" float8, lost boolean,
    "placementRules" text[], "placementTable" text)
  where to_timestamp(r."acceptedAtMs" / 1000) >= (select oldest from record_horizon)
  on conflict (id, accepted_at) do update set
    ${replaceable.map((name) => `${name} = excluded.${name}`).join(", ")}, replaced_status = invocations.status
    where invocations.lost and not excluded.lost
  returning tenant_id, date_trunc('hour', accepted_at, 'UTC') as hour, function_id, coalesce(path, 'none') as path, status,
    memory_mb::bigint * round(billed_ms)::bigint as mib_ms, coalesce(round(cpu_ms * 1000), 0)::bigint as cpu_us,
    response_bytes as egress_bytes, replaced_status
), changes as (
  select tenant_id, hour, function_id, path, status, 1 as invocations, mib_ms, cpu_us, egress_bytes from written
  union all
  select tenant_id, hour, function_id, 'none', replaced_status, -1, 0, 0, 0 from written where replaced_status is not null
), summed as (
  select tenant_id, hour, function_id, path, status, sum(invocations)::bigint as invocations,
    sum(mib_ms)::bigint as mib_ms, sum(cpu_us)::bigint as cpu_us, sum(egress_bytes)::bigint as egress_bytes
  from changes group by 1, 2, 3, 4, 5
), counted as (
  insert into usage_hours as u (tenant_id, hour, function_id, path, status, invocations, mib_ms, cpu_us, egress_bytes)
  select * from summed order by 1, 2, 3, 4, 5
  on conflict (tenant_id, hour, function_id, path, status) do update set
    invocations = u.invocations + excluded.invocations, mib_ms = u.mib_ms + excluded.mib_ms,
    cpu_us = u.cpu_us + excluded.cpu_us, egress_bytes = u.egress_bytes + excluded.egress_bytes
)
select tenant_id as "tenantId", to_char(hour at time zone 'UTC', 'YYYY-MM') as month, path, status,
  sum(invocations)::float8 as invocations, sum(mib_ms)::float8 as "mibMs", sum(cpu_us)::float8 as "cpuUs",
  sum(egress_bytes)::float8 as "egressBytes"
from summed group by 1, 2, 3, 4`;

/**
 * Writes many records and adds them to the usage of their hours, both or neither. A record that is there already is left as it is and not
 * counted again; a `lost` one is replaced by one that is not, and its count moves. Gives what was added.
 */
export async function writeRecords(
  db: Database,
  records: readonly SerializedRecord[],
): Promise<RecordedUsage[]> {
  if (records.length === 0) return [];
  // No statement may touch a row twice.
  const byId = new Map<string, SerializedRecord>();
  for (const record of records) {
    const before = byId.get(record.id);
    if (!before || (before.lost && !record.lost)) byId.set(record.id, record);
  }
  // In one order for all writers: two that have the same records must not wait for each other in a circle.
  const texts = [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1)).map(({ json }) => json);
  const { rows } = await db.pool.query<RecordedUsage>(WRITE, [`[${texts.join(",")}]`]);
  return rows;
}

/** `writeRecords` for records that are not serialized yet. */
export const insertInvocations = (
  db: Database,
  records: readonly InvocationRecord[],
): Promise<RecordedUsage[]> => writeRecords(db, records.map(serializeRecord));

const ALPHABET = "0123456789abcdefghijklmnopqrstuv";
/** A record's own time may differ this much from the time in its id, ms. */
const ID_TOLERANCE_MS = 3_600_000;

/** The time in an id's first ten characters (contracts/ids.ts), ms. */
function timeOf(id: string): number {
  let time = 0;
  for (const letter of id.slice("inv_".length, "inv_".length + 10))
    time = time * 32 + ALPHABET.indexOf(letter);
  return time;
}

/** A tenant's record; the time in the id keeps PostgreSQL from looking into every partition. */
export async function readInvocation(
  db: Database,
  tenantId: string,
  id: string,
): Promise<InvocationRecord | undefined> {
  const atMs = timeOf(id);
  const [row] = await db.orm
    .select()
    .from(invocations)
    .where(
      and(
        eq(invocations.id, id),
        eq(invocations.tenantId, tenantId),
        gt(invocations.acceptedAt, new Date(atMs - ID_TOLERANCE_MS)),
        lt(invocations.acceptedAt, new Date(atMs + ID_TOLERANCE_MS)),
      ),
    );
  if (!row) return undefined;
  const { acceptedAt, finishedAt, lost, replacedStatus: _, ...plain } = row;
  const record = {
    ...plain,
    status: plain.status as InvocationStatus,
    path: plain.path as Path | null,
    start: plain.start as StartKind | null,
    acceptedAtMs: acceptedAt.getTime(),
    finishedAtMs: finishedAt.getTime(),
    lost: lost || null,
  };
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== null),
  ) as unknown as InvocationRecord;
}
