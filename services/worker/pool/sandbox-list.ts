import type { LiveSandbox, SandboxFilter } from "#contracts/live-sandbox";
import type { Entry, FunctionPool } from "./function-pool.ts";
import type { PreparedCells } from "./prepared-cells.ts";

/** The pool's sandboxes that match, as people see them: at most `limit`, and how many there are. */
export function listSandboxes(
  functions: Iterable<FunctionPool>,
  cells: PreparedCells,
  { tenantId, functionId }: SandboxFilter,
  limit: number,
): { total: number; sandboxes: LiveSandbox[] } {
  const sandboxes: LiveSandbox[] = [];
  let total = 0;
  const nowMs = performance.now();
  for (const { spec, entries } of functions) {
    if (tenantId !== undefined && spec.tenantId !== tenantId) continue;
    if (functionId !== undefined && spec.functionId !== functionId) continue;
    for (const entry of entries) {
      if (total++ < limit) sandboxes.push(shown(entry, nowMs));
    }
  }
  if (tenantId !== undefined || functionId !== undefined) return { total, sandboxes };
  for (const [{ kind, image, memoryMb }, { id }] of cells.booted()) {
    if (total++ < limit)
      sandboxes.push({
        ...{ id, path: kind, runtime: image, memoryMb },
        ...{ state: "prepared", invocations: 0, active: 0 },
      });
  }
  return { total, sandboxes };
}

function shown(entry: Entry, nowMs: number): LiveSandbox {
  const { owner, sandbox, active, served, kind, madeAtMs } = entry;
  const { spec, path } = owner;
  const memoryPeakBytes = sandbox.memoryPeakBytes();
  return {
    id: sandbox.id,
    path,
    runtime: spec.config.runtime,
    state: stateOf(entry),
    start: kind,
    tenantId: spec.tenantId,
    functionId: spec.functionId,
    function: spec.name,
    version: spec.version,
    ageMs: Math.round(nowMs - madeAtMs),
    memoryMb: spec.config.memoryMb,
    ...(memoryPeakBytes === undefined ? {} : { memoryPeakBytes }),
    invocations: served,
    active: Math.min(active, owner.width),
  };
}

function stateOf(entry: Entry): LiveSandbox["state"] {
  const { retired, active, resettingSinceMs, spare } = entry;
  if (retired) return "ending";
  if (active > 0) return "busy";
  if (spare) return "pooled";
  return resettingSinceMs === undefined ? "idle" : "resetting";
}
