import type { Entry, FunctionPool, Start } from "./function-pool.ts";

/** A tenant that holds no more than another gives way all the same once that one has waited so long, ms: then they take turns. */
const TURN_MS = 200;

/** Memory that each tenant's sandboxes have, or will have when they are made, MiB. What was told to end does not count. */
function heldByTenant(functions: Iterable<FunctionPool>): Map<string, number> {
  const held = new Map<string, number>();
  for (const { spec, entries, running } of functions) {
    let count = running;
    for (const { retired } of entries) if (!retired) count++;
    const { tenantId, config } = spec;
    held.set(tenantId, (held.get(tenantId) ?? 0) + count * config.memoryMb);
  }
  return held;
}

/** Which of the starts that wait comes next: of the tenant that holds least, the oldest; the oldest of all where there is one tenant. */
export function nextStart(
  waiting: ReadonlySet<Start>,
  functions: () => Iterable<FunctionPool>,
): Start | undefined {
  const first = new Map<string, Start>();
  for (const start of waiting) {
    const { tenantId } = start.owner.spec;
    if (!first.has(tenantId)) first.set(tenantId, start);
  }
  let next: Start | undefined;
  if (first.size > 1) {
    const held = heldByTenant(functions());
    let least = Number.POSITIVE_INFINITY;
    for (const [tenant, start] of first) {
      const its = held.get(tenant) ?? 0;
      if (its >= least) continue;
      least = its;
      next = start;
    }
    return next;
  }
  return first.values().next().value;
}

/**
 * Whether a sandbox that has become free is to end, though its own function may have calls for it, because another tenant's start finds no memory:
 * when its tenant would still hold more than the other, or the other has waited for a turn. Without this a tenant whose calls never cease would keep
 * all memory.
 */
export function givesWay(
  { owner }: Entry,
  start: Start | undefined,
  functions: () => Iterable<FunctionPool>,
  freeSoonMb: number,
  nowMs: number,
): boolean {
  if (!start || start.owner.spec.config.memoryMb <= freeSoonMb) return false;
  const { tenantId, config } = owner.spec;
  const other = start.owner.spec.tenantId;
  if (other === tenantId) return false;
  const held = heldByTenant(functions());
  const left = (held.get(tenantId) ?? 0) - config.memoryMb;
  const theirs = held.get(other) ?? 0;
  if (left !== theirs) return left > theirs;
  const [waiter] = start.owner.waiters;
  return waiter !== undefined && nowMs - waiter.sinceMs > TURN_MS;
}
