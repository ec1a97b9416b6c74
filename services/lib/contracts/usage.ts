import type { Path } from "./function.ts";
import type { InvocationRecord, InvocationStatus } from "./invocation.ts";

/** A record on its way into the database: its text is made once, for the journal and the statement. */
export interface SerializedRecord {
  id: string;
  /** As in InvocationRecord. */
  lost: boolean;
  json: string;
}

export const serializeRecord = (record: InvocationRecord): SerializedRecord => ({
  id: record.id,
  lost: record.lost === true,
  json: JSON.stringify(record),
});

/** What a batch of records has added to the usage of a tenant, by path and status. */
export interface RecordedUsage {
  tenantId: string;
  /** The UTC month in which the invocations were accepted, e.g. `2026-11`. */
  month: string;
  /** `none` of invocations that were never placed. */
  path: string;
  status: string;
  invocations: number;
  mibMs: number;
  cpuUs: number;
  egressBytes: number;
}

/** A GB-second is 1024 MiB for 1000 ms. */
export const MIB_MS_PER_GB_SECOND = 1024 * 1000;
export const CPU_US_PER_SECOND = 1_000_000;

export const HOUR_MS = 3_600_000;

/** When a UTC month begins and ends; throws RangeError for a text that is no month. */
export function boundsOfMonth(month: string): { fromMs: number; toMs: number } {
  const match = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(month);
  if (!match) throw new RangeError(`${month} is not a month such as 2026-11`);
  const [year, index] = [Number(match[1]), Number(match[2]) - 1];
  return { fromMs: Date.UTC(year, index), toMs: Date.UTC(year, index + 1) };
}

/** Paths as usage tells them apart; `none` is of invocations that were never placed. */
export const USAGE_PATHS = ["container", "microvm", "none"] as const satisfies (Path | "none")[];
export const USAGE_STATUSES = [
  "ok",
  "function_error",
  "function_timeout",
  "function_out_of_memory",
  "function_exited",
  "cancelled",
  "platform_error",
] as const satisfies InvocationStatus[];
