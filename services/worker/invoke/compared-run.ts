import type { MeasuredRun } from "#contracts/comparison";
import type { Path, VersionSpec } from "#contracts/function";
import type { InvocationJob } from "#contracts/invocation";
import { CloisterError } from "#errors/catalogue";
import type { Lease } from "../pool/function-pool.ts";
import type { PendingLease } from "../pool/sandbox-pool.ts";
import type { InvocationContext, InvocationOutcome } from "./context.ts";

/** A sandbox of the pool; for a run of a comparison, one started as it asks. */
export function acquireFor(
  { pool, forced }: Pick<InvocationContext, "pool" | "forced">,
  { compare }: InvocationJob,
  spec: VersionSpec,
  path: Path,
  waitMs: number,
  mayQueue: boolean,
): Lease | PendingLease {
  if (compare?.start === undefined) return pool.acquire(spec, path, waitMs, mayQueue);
  if (!forced) throw new CloisterError("start_unavailable", "This worker forces no starts");
  return forced.acquire(spec, path, compare.start);
}

const MADE_FOR_IT: ReadonlySet<string> = new Set(["cold", "prepared", "restored"]);

/** What a comparison wants to know of a run. Read while the sandbox is still there. */
export function measuredRun(
  nodeId: string,
  { sandbox, start, asideMs = 0 }: Lease,
  callCpuMs: number | undefined,
  { exits, guestMs, monitorMs, pageFaults }: InvocationOutcome["work"],
): MeasuredRun {
  // Of a fresh sandbox all counts, what a cell used while it waited too: somebody has paid for it.
  const cpuMs = MADE_FOR_IT.has(start) ? sandbox.cpuMs() : callCpuMs;
  const privateKib = sandbox.privateKib();
  return {
    nodeId,
    asideMs,
    ...(cpuMs === undefined ? {} : { cpuMs }),
    ...(privateKib === undefined ? {} : { privateKib }),
    ...(pageFaults === undefined ? {} : { pageFaults }),
    ...(exits === undefined ? {} : { exits: { ...exits } }),
    ...(guestMs === undefined ? {} : { guestMs }),
    ...(monitorMs === undefined ? {} : { monitorMs }),
  };
}
