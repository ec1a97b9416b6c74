import { boundsOfMonth, HOUR_MS, MIB_MS_PER_GB_SECOND } from "#contracts/usage";
import type { Database } from "./database.ts";

/** Whole UTC hours, the last left out; both are multiples of HOUR_MS. */
export interface HourRange {
  fromMs: number;
  toMs: number;
}

/** What was used, in the units of the table: sums of whole numbers. */
export interface Used {
  invocations: number;
  mibMs: number;
  cpuUs: number;
  egressBytes: number;
}

export interface UsageSum extends Used {
  byPath: Record<string, number>;
  byStatus: Record<string, number>;
}

export interface UsageHour extends UsageSum {
  hourMs: number;
  /** The most that was stored within the hour. */
  storageBytes: number;
}

export interface UsageTotals extends UsageSum {
  /** What was stored at the end of the range. */
  storageBytes: number;
  /** The most of each hour, added up. */
  storageByteHours: number;
}

export interface FunctionUsage extends Used {
  functionId: string;
  /** Absent once the function has been removed for good. */
  name?: string;
}

/** Functions that are told apart in one answer; more are left out, those that used least first. */
export const MAX_FUNCTIONS = 1000;

interface Row extends Used {
  path: string;
  status: string;
}

const SUMS = `sum(invocations)::float8 as invocations, sum(mib_ms)::float8 as "mibMs", sum(cpu_us)::float8 as "cpuUs",
  sum(egress_bytes)::float8 as "egressBytes"`;
const OF_RANGE =
  "tenant_id = $1 and hour >= to_timestamp($2::float8 / 1000) and hour < to_timestamp($3::float8 / 1000)";

const argumentsOf = (tenantId: string, { fromMs, toMs }: HourRange): unknown[] => [
  tenantId,
  fromMs,
  toMs,
];

const nothing = (): UsageSum => ({
  ...{ invocations: 0, mibMs: 0, cpuUs: 0, egressBytes: 0 },
  ...{ byPath: {}, byStatus: {} },
});

function add(sum: UsageSum, { path, status, ...used }: Row): void {
  for (const what of ["invocations", "mibMs", "cpuUs", "egressBytes"] as const)
    sum[what] += used[what];
  // Where a record replaced another, what that had counted is there with 0.
  if (used.invocations === 0) return;
  sum.byPath[path] = (sum.byPath[path] ?? 0) + used.invocations;
  sum.byStatus[status] = (sum.byStatus[status] ?? 0) + used.invocations;
}

/** A tenant's usage in all of a range. */
export async function readUsageTotals(
  db: Database,
  tenantId: string,
  range: HourRange,
): Promise<UsageTotals> {
  const { rows } = await db.pool.query<Row>(
    `select path, status, ${SUMS} from usage_hours where ${OF_RANGE} group by 1, 2`,
    argumentsOf(tenantId, range),
  );
  const sum = nothing();
  for (const row of rows) add(sum, row);
  let storageByteHours = 0;
  const storage = await readStorage(db, tenantId, range);
  for (let at = range.fromMs; at < range.toMs; at += HOUR_MS) storageByteHours += storage.peak(at);
  return { ...sum, storageBytes: storage.end, storageByteHours };
}

/** Each hour of a range, also those without use. */
export async function readUsageHours(
  db: Database,
  tenantId: string,
  range: HourRange,
): Promise<UsageHour[]> {
  const { rows } = await db.pool.query<Row & { ms: number }>(
    `select extract(epoch from hour)::float8 * 1000 as ms, path, status, ${SUMS}
     from usage_hours where ${OF_RANGE} group by 1, 2, 3`,
    argumentsOf(tenantId, range),
  );
  const storage = await readStorage(db, tenantId, range);
  const hours = new Map<number, UsageHour>();
  for (let hourMs = range.fromMs; hourMs < range.toMs; hourMs += HOUR_MS)
    hours.set(hourMs, { hourMs, ...nothing(), storageBytes: storage.peak(hourMs) });
  for (const { ms, ...row } of rows) add(hours.get(ms) as UsageHour, row);
  return [...hours.values()];
}

/** A tenant's usage by function, those that used most first. */
export async function readUsageByFunction(
  db: Database,
  tenantId: string,
  range: HourRange,
): Promise<FunctionUsage[]> {
  const { rows } = await db.pool.query<Used & { functionId: string; name: string | null }>(
    `select summed.*, functions.name from (
       select function_id as "functionId", ${SUMS} from usage_hours where ${OF_RANGE} group by 1
     ) as summed left join functions on functions.id = "functionId" and functions.tenant_id = $1
     order by "mibMs" desc, "functionId" limit ${MAX_FUNCTIONS}`,
    argumentsOf(tenantId, range),
  );
  return rows.map(({ name, ...used }) => ({ ...used, ...(name === null ? {} : { name }) }));
}

/** Whether anything was ever metered for a tenant, which may have been removed since. */
export async function hasUsage(db: Database, tenantId: string): Promise<boolean> {
  const { rows } = await db.pool.query<{ any: boolean }>(
    `select exists (select from usage_hours where tenant_id = $1)
       or exists (select from usage_storage where tenant_id = $1) as any`,
    [tenantId],
  );
  return rows[0]?.any === true;
}

interface Storage {
  /** The most within the hour that begins then. To be asked for ascending hours. */
  peak(hourMs: number): number;
  /** At the end of the range. */
  end: number;
}

/** What a tenant stored; between the hours in which that changed it stays. */
async function readStorage(
  db: Database,
  tenantId: string,
  { fromMs, toMs }: HourRange,
): Promise<Storage> {
  const { rows } = await db.pool.query<{ ms: number; peak: number; end: number }>(
    `select extract(epoch from hour)::float8 * 1000 as ms, peak_bytes::float8 as peak, end_bytes::float8 as end
     from usage_storage where tenant_id = $1 and hour < to_timestamp($3::float8 / 1000) and hour >= coalesce((
       select max(hour) from usage_storage where tenant_id = $1 and hour < to_timestamp($2::float8 / 1000)), '-infinity')
     order by hour`,
    [tenantId, fromMs, toMs],
  );
  let next = 0;
  let stored = 0;
  return {
    peak(hourMs) {
      let peak = stored;
      for (let row = rows[next]; row && row.ms <= hourMs; row = rows[++next]) {
        peak = row.ms === hourMs ? row.peak : row.end;
        stored = row.end;
      }
      return peak;
    },
    end: rows.at(-1)?.end ?? 0,
  };
}

/** GB-seconds that tenants have used in a UTC month (`2026-11`): of one, or of all that used any. */
export async function readMonthTotals(
  db: Database,
  month: string,
  tenantId?: string,
): Promise<Map<string, number>> {
  const { fromMs, toMs } = boundsOfMonth(month);
  const { rows } = await db.pool.query<{ tenant: string; mibMs: number }>(
    `select tenant_id as tenant, sum(mib_ms)::float8 as "mibMs" from usage_hours
     where ($1::text is null or tenant_id = $1) and hour >= to_timestamp($2::float8 / 1000)
       and hour < to_timestamp($3::float8 / 1000) group by 1`,
    [tenantId ?? null, fromMs, toMs],
  );
  return new Map(rows.map(({ tenant, mibMs }) => [tenant, mibMs / MIB_MS_PER_GB_SECOND]));
}

/** An hour of a function whose usage is not what its records say. */
export interface UsageDifference {
  tenantId: string;
  hourMs: number;
  functionId: string;
  path: string;
  status: string;
  records: Used;
  usage: Used;
}

export interface Reconciliation {
  /** The part of the range of which the records are kept. */
  range: HourRange;
  records: number;
  /** At most MAX_DIFFERENCES. */
  differences: UsageDifference[];
}

export const MAX_DIFFERENCES = 100;

/** Compares usage with the records it was made of, in one snapshot of the database. Hours whose records were dropped are left out. */
export async function reconcileUsage(db: Database, range: HourRange): Promise<Reconciliation> {
  const { rows } = await db.pool.query<{
    oldest: number;
    records: number;
    differences: UsageDifference[];
  }>(
    `with bounds as (
       select greatest(to_timestamp($1::float8 / 1000), oldest) as low, to_timestamp($2::float8 / 1000) as high from record_horizon
     ), recorded as (
       select tenant_id, to_timestamp(floor(extract(epoch from accepted_at) / 3600) * 3600) as hour, function_id,
         coalesce(path, 'none') as path, status, count(*) as invocations, sum(memory_mb * billed_ms)::numeric as mib_ms,
         sum(coalesce(round(cpu_ms * 1000), 0))::numeric as cpu_us, sum(response_bytes) as egress_bytes
       from invocations, bounds where accepted_at >= low and accepted_at < high group by 1, 2, 3, 4, 5
     ), metered as (
       select usage_hours.* from usage_hours, bounds where hour >= low and hour < high
         -- Left by a record that was replaced.
         and not (invocations = 0 and mib_ms = 0 and cpu_us = 0 and egress_bytes = 0)
     ), compared as (
       select coalesce(r.tenant_id, u.tenant_id) as "tenantId", extract(epoch from coalesce(r.hour, u.hour))::float8 * 1000 as "hourMs",
         coalesce(r.function_id, u.function_id) as "functionId", coalesce(r.path, u.path) as path, coalesce(r.status, u.status) as status,
         jsonb_build_object('invocations', coalesce(r.invocations, 0), 'mibMs', coalesce(r.mib_ms, 0), 'cpuUs', coalesce(r.cpu_us, 0),
           'egressBytes', coalesce(r.egress_bytes, 0)) as records,
         jsonb_build_object('invocations', coalesce(u.invocations, 0), 'mibMs', coalesce(u.mib_ms, 0), 'cpuUs', coalesce(u.cpu_us, 0),
           'egressBytes', coalesce(u.egress_bytes, 0)) as usage
       from recorded r full join metered u
         on (r.tenant_id, r.hour, r.function_id, r.path, r.status) = (u.tenant_id, u.hour, u.function_id, u.path, u.status)
     ), different as (
       select * from compared where records <> usage order by "hourMs", "tenantId", "functionId" limit ${MAX_DIFFERENCES}
     )
     select extract(epoch from low)::float8 * 1000 as oldest, (select coalesce(sum(invocations), 0)::float8 from recorded) as records,
       (select coalesce(jsonb_agg(to_jsonb(different)), '[]') from different) as differences
     from bounds`,
    [range.fromMs, range.toMs],
  );
  const [found] = rows;
  if (!found) throw new Error("The table record_horizon has no row.");
  return {
    range: { fromMs: Math.min(found.oldest, range.toMs), toMs: range.toMs },
    records: found.records,
    differences: found.differences,
  };
}
