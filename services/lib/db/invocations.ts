import { and, eq, gt, lt } from "drizzle-orm";
import type { Path, StartKind } from "#contracts/function";
import type { InvocationRecord, InvocationStatus } from "#contracts/invocation";
import type { Database } from "./database.ts";
import { invocations } from "./schema.ts";

/** Writes many records by one statement; one that is there already is left as it is. */
export async function insertInvocations(db: Database, records: InvocationRecord[]): Promise<void> {
  if (records.length === 0) return;
  await db.pool.query(
    `insert into invocations (id, tenant_id, function_id, version_id, accepted_at, finished_at, status, http_status,
       error_code, path, start, placement_reasons, phases, duration_ms, billed_ms, memory_mb, cpu_ms,
       memory_peak_bytes, request_bytes, response_bytes, sandbox_id, node_id, exits, syscalls, page_faults, guest_ms,
       monitor_ms, placement_rules, placement_table)
     select r.id, r."tenantId", r."functionId", r."versionId", to_timestamp(r."acceptedAtMs" / 1000),
       to_timestamp(r."finishedAtMs" / 1000), r.status, r."httpStatus", r."errorCode", r.path, r.start,
       array(select jsonb_array_elements_text(r."placementReasons")), r.phases, r."durationMs", r."billedMs", r."memoryMb",
       r."cpuMs", r."memoryPeakBytes", r."requestBytes", r."responseBytes", r."sandboxId", r."nodeId",
       r.exits, r.syscalls, r."pageFaults", r."guestMs", r."monitorMs",
       case when r."placementRules" is not null then array(select jsonb_array_elements_text(r."placementRules")) end,
       r."placementTable"
     from jsonb_to_recordset($1::jsonb) as r (
       id text, "tenantId" text, "functionId" text, "versionId" text, "acceptedAtMs" float8, "finishedAtMs" float8,
       status text, "httpStatus" smallint, "errorCode" text, path text, start text, "placementReasons" jsonb,
       phases jsonb, "durationMs" float8, "billedMs" float8, "memoryMb" integer, "cpuMs" float8,
       "memoryPeakBytes" bigint, "requestBytes" bigint, "responseBytes" bigint, "sandboxId" text, "nodeId" text,
       exits jsonb, syscalls jsonb, "pageFaults" bigint, "guestMs" float8, "monitorMs" float8,
       "placementRules" jsonb, "placementTable" text)
     on conflict (id, accepted_at) do nothing`,
    [JSON.stringify(records)],
  );
}

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
  const { acceptedAt, finishedAt, ...plain } = row;
  const record = {
    ...plain,
    status: plain.status as InvocationStatus,
    path: plain.path as Path | null,
    start: plain.start as StartKind | null,
    acceptedAtMs: acceptedAt.getTime(),
    finishedAtMs: finishedAt.getTime(),
  };
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== null),
  ) as unknown as InvocationRecord;
}
