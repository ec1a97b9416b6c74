import type { Quota } from "#contracts/quota";
import { readPublishedUse } from "#db/quotas";
import type { GatewayContext } from "../gateway-context.ts";

/** What a tenant uses now, under the names of the quota's fields; null is not counted. */
export interface QuotaUse {
  burst: number | null;
  concurrency: number | null;
  gbSecondsPerMonth: number | null;
  memoryMb: number | null;
  timeoutMs: number | null;
  bundleBytes: number | null;
  functions: number | null;
}

/** Reads it from PostgreSQL and, where something is counted there, from Redis; without Redis the rest is told. */
export async function readQuotaUse(
  gateway: Pick<GatewayContext, "db" | "counters" | "readMonthTotal" | "onProblem">,
  tenantId: string,
  quota: Quota,
): Promise<QuotaUse> {
  const [published, counted] = await Promise.all([
    readPublishedUse(gateway.db, tenantId),
    gateway.counters.readUse(tenantId, quota).catch((error: Error) => {
      gateway.onProblem(error);
      return undefined;
    }),
  ]);
  const month = counted?.month ?? new Date().toISOString().slice(0, 7);
  const recorded = await gateway.readMonthTotal(tenantId, month);
  return {
    burst: quota.requestsPerSecond === null ? null : (counted?.burst ?? null),
    concurrency: quota.concurrency === null ? null : (counted?.concurrency ?? null),
    // Redis counts each call as it ends, records follow; what Redis has lost is in the records.
    gbSecondsPerMonth: Math.max(recorded, counted?.gbSeconds ?? 0),
    ...published,
  };
}

/** The quotas that are below what is used. */
export const overUse = (quota: Quota, use: QuotaUse): string[] =>
  Object.entries(use)
    .filter(([field, used]) => {
      const most = quota[field as keyof QuotaUse];
      return used !== null && most !== null && used > most;
    })
    .map(([field]) => field);
