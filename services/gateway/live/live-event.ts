import type { Glance, LiveBatch, LiveSum, PoolFigures } from "#contracts/live";

/** What the page is told: a batch of one node, as far as its reader may see it. */
export interface LiveEvent {
  /** Absent for who sees one tenant: nodes are the operator's. */
  node?: string;
  atMs: number;
  spanMs: number;
  pool?: PoolFigures;
  sums: Omit<LiveSum, "tenantId">[];
  calls: (Omit<Glance, "tenantId"> & { tenant?: string })[];
  uncounted?: number;
}

/** A batch for who may see everything. `names` are those of tenants. */
export function eventOfAll(batch: LiveBatch, names: ReadonlyMap<string, string>): LiveEvent {
  const { nodeId: node, atMs, spanMs, pool, sums, calls, uncounted } = batch;
  return {
    ...{ node, atMs, spanMs, pool },
    sums: together(sums),
    calls: calls.map(({ tenantId, ...call }) => ({
      ...call,
      tenant: names.get(tenantId) ?? tenantId,
    })),
    ...(uncounted > 0 ? { uncounted } : {}),
  };
}

/** A batch for who sees one tenant; undefined when nothing in it is that tenant's. */
export function eventOfTenant(batch: LiveBatch, tenantId: string): LiveEvent | undefined {
  const own = <T extends { tenantId: string }>(list: readonly T[]): T[] =>
    list.filter((one) => one.tenantId === tenantId);
  const sums = own(batch.sums);
  if (sums.length === 0) return undefined;
  return {
    atMs: batch.atMs,
    spanMs: batch.spanMs,
    sums: together(sums),
    calls: own(batch.calls).map(({ tenantId: _, ...call }) => call),
  };
}

/** Sums of the same path and start as one. */
function together(sums: readonly LiveSum[]): LiveEvent["sums"] {
  const all = new Map<string, LiveEvent["sums"][number]>();
  for (const { tenantId: _, ...sum } of sums) {
    const key = `${sum.path} ${sum.start}`;
    const before = all.get(key);
    if (!before) {
      all.set(key, { ...sum });
      continue;
    }
    before.calls += sum.calls;
    before.failures += sum.failures;
    const { exits } = sum;
    if (!exits) continue;
    const sofar = before.exits ?? { syscall: 0, fault: 0, interrupted: 0, page_unavailable: 0 };
    before.exits = {
      syscall: sofar.syscall + exits.syscall,
      fault: sofar.fault + exits.fault,
      interrupted: sofar.interrupted + exits.interrupted,
      page_unavailable: sofar.page_unavailable + exits.page_unavailable,
    };
  }
  return [...all.values()];
}
