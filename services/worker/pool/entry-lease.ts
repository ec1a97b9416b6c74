import type { StartPhases } from "../sandbox/index.ts";
import type { Entry, Lease } from "./function-pool.ts";

const NO_PHASES: StartPhases = Object.freeze({});

/**
 * The right of one invocation to `entry`, of which `given` hears when it gives that back. `behind`: it begins when others have ended there, and is counted among
 * those that wait until then.
 */
export function leaseOf(
  entry: Entry,
  behind: boolean,
  given: (lease: Lease, keep: boolean) => void,
): Lease {
  const { owner, sandbox } = entry;
  const start = entry.firstStart ?? "warm";
  // What a clone took to come back before this invocation came was nobody's wait.
  const waited = entry.spare && !sandbox.returning;
  const phases = entry.firstStart && !waited ? entry.firstPhases : NO_PHASES;
  entry.firstStart = undefined;
  entry.spare = false;
  let released = false;
  let beganMs: number | undefined;
  const begins = (atMs: number | undefined): void => {
    const change = Number(atMs !== undefined) - Number(beganMs !== undefined);
    entry.served += change;
    if (behind) owner.behind -= change;
    beganMs = atMs;
    entry.beganMs = atMs ?? entry.beganMs;
  };
  if (behind) owner.behind++;
  else begins(performance.now());
  const lease: Lease = {
    sandbox,
    start,
    phases,
    behind,
    begins,
    release: (keep) => {
      if (released) return;
      released = true;
      const nowMs = performance.now();
      if (beganMs === undefined) owner.behind--;
      else {
        owner.holds = sandbox.holds;
        owner.served(nowMs - beganMs, nowMs, sandbox.takeCallCpuMs());
      }
      given(lease, keep);
    },
  };
  return lease;
}
