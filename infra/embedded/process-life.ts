import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

/**
 * When a process started, in clock ticks since boot (proc_pid_stat(5), field 22): with its pid it names one process for ever, which a
 * pid alone does not. Undefined when there is none, or only its zombie.
 */
export function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in parentheses, may hold anything; the fields begin after the last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Waits until that very process is gone. False when it is still there after `boundMs`. */
export async function waitGone(pid: number, startTime: string, boundMs: number): Promise<boolean> {
  // The end of a process that is no child has no event in Node, so it is asked for, ever more rarely.
  const end = performance.now() + boundMs;
  for (let pause = 2; startTimeOf(pid) === startTime; pause = Math.min(pause * 2, 50)) {
    if (performance.now() > end) return false;
    await delay(pause);
  }
  return true;
}

/** Sends a signal to that very process. False when it is gone. */
export function signalProcess(pid: number, startTime: string, signal: NodeJS.Signals): boolean {
  if (startTimeOf(pid) !== startTime) return false;
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

/** Resolves when a child has ended, at once if it already has. */
export function childEnd(
  child: ChildProcess,
): Promise<{ code: number | null; signal: string | null }> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return Promise.resolve({ code: child.exitCode, signal: child.signalCode });
  }
  const { promise, resolve } = Promise.withResolvers<{
    code: number | null;
    signal: string | null;
  }>();
  child.once("exit", (code, signal) => resolve({ code, signal }));
  child.once("error", () => {
    if (child.pid === undefined) resolve({ code: null, signal: null });
  });
  return promise;
}

/**
 * Asks a child to end by each signal in turn, giving it `boundMs` after each but the last, which should be one it cannot refuse. Resolves
 * when it has ended.
 */
export async function endChild(
  child: ChildProcess,
  steps: readonly { signal: NodeJS.Signals; boundMs: number }[],
): Promise<void> {
  const ended = childEnd(child);
  for (const { signal, boundMs } of steps) {
    child.kill(signal);
    const timer = new AbortController();
    const late = delay(boundMs, "late", { signal: timer.signal }).catch(() => "late");
    const outcome = await Promise.race([ended, late]);
    timer.abort();
    if (outcome !== "late") return;
  }
  await ended;
}

/** Kills a child that was started `detached`, and all it has started that is still in its group. */
export function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    // All have ended.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/**
 * `killGroup`, and nobody waits for its streams any more: one of the group that hangs, as a forked child of a process with threads may in a lock, would hold
 * the streams it has inherited, and so does what has left the group.
 */
export function endGroup(child: ChildProcess): void {
  killGroup(child);
  for (const stream of child.stdio) stream?.destroy();
}
