import type { Path, StartKind } from "#contracts/function";
import type { InvocationStatus, Phases } from "#contracts/invocation";
import type { Database } from "./database.ts";

/** An invocation as a list shows it. */
export interface RecentInvocation {
  id: string;
  tenantId: string;
  functionId: string;
  /** Absent when the function is gone. */
  function?: string;
  acceptedAt: Date;
  /** The same with all its digits, ms: where the next page begins. */
  acceptedAtMs: number;
  status: InvocationStatus;
  httpStatus?: number;
  errorCode?: string;
  path?: Path;
  start?: StartKind;
  phases: Phases;
  durationMs: number;
}

export interface RecentQuery {
  limit: number;
  /** Of one tenant; else of all. */
  tenantId?: string;
  /** Of one function of that tenant. */
  functionId?: string;
  /** Accepted before this, wall clock, ms. */
  beforeMs?: number;
}

/** Nobody looks for older ones in a list; it keeps PostgreSQL from opening every partition. */
const DAYS = 7;

const COLUMNS = `i.id, i.tenant_id as "tenantId", i.function_id as "functionId", f.name as "function",
  i.accepted_at as "acceptedAt", (extract(epoch from i.accepted_at) * 1000)::float8 as "acceptedAtMs", i.status, i.http_status as "httpStatus", i.error_code as "errorCode", i.path, i.start, i.phases,
  i.duration_ms as "durationMs"`;
const WINDOW =
  "i.accepted_at > now() - make_interval(days => $2) and i.accepted_at < coalesce(to_timestamp($3::float8 / 1000), 'infinity')";

/** Invocations that have ended, the newest first. */
export async function recentInvocations(
  db: Database,
  { limit, tenantId, functionId, beforeMs }: RecentQuery,
): Promise<RecentInvocation[]> {
  const window = [limit, DAYS, beforeMs ?? null];
  const { rows } =
    tenantId === undefined
      ? // Ids sort by time, and are the key of every partition.
        await db.pool.query(
          `select ${COLUMNS} from (select * from invocations i where ${WINDOW} order by i.id desc limit $1) i
           left join functions f on f.id = i.function_id order by i.id desc`,
          window,
        )
      : // By the index of each function: a tenant that is quiet is not looked for among the calls of all others.
        await db.pool.query(
          `select ${COLUMNS} from functions f cross join lateral (
             select * from invocations i where i.function_id = f.id and i.tenant_id = f.tenant_id and ${WINDOW}
             order by i.accepted_at desc limit $1
           ) i where f.tenant_id = $4 and ($5::text is null or f.id = $5) order by i.accepted_at desc limit $1`,
          [...window, tenantId, functionId ?? null],
        );
  return rows.map(
    (row) =>
      Object.fromEntries(
        Object.entries(row).filter(([, value]) => value !== null),
      ) as unknown as RecentInvocation,
  );
}
