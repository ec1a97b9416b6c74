import { readFileSync } from "node:fs";

/**
 * How long the processor limit of a process's control group has held it back, ms, summed over the processors that stood still; undefined where the kernel does not tell.
 * A sandbox has 100 ms of processor time in each 100 ms. A start that uses more threads than one for some time meets that before it has answered, and then waits for
 * the next 100 ms; a bare process has no such limit.
 */
export function heldBackMs(pid: number): number | undefined {
  try {
    const groups = readFileSync(`/proc/${pid}/cgroup`, "latin1");
    const files = statFilesOf(groups).flatMap((path) => {
      try {
        return [readFileSync(path, "latin1")];
      } catch {
        return [];
      }
    });
    return files.map(throttledMs).find((ms) => ms !== undefined);
  } catch {
    return undefined;
  }
}

/** Where the kernel keeps the account, by the text of /proc/<pid>/cgroup (cgroups(7)): version 1 first, which has the controller where it is mounted. */
export function statFilesOf(groups: string): string[] {
  const one = /^\d+:(?:[^:\n]*,)?cpu(?:,[^:\n]*)?:(\/.*)$/m.exec(groups)?.[1];
  const two = /^0::(\/.*)$/m.exec(groups)?.[1];
  return [
    ...(one === undefined ? [] : [`/sys/fs/cgroup/cpu${one}/cpu.stat`]),
    ...(two === undefined ? [] : [`/sys/fs/cgroup${two}/cpu.stat`]),
  ];
}

/** Of cpu.stat: `throttled_time` in ns (version 1), `throttled_usec` (version 2). */
export function throttledMs(stat: string): number | undefined {
  const found = /^throttled_(time|usec) (\d+)$/m.exec(stat);
  if (!found) return undefined;
  return Number(found[2]) / (found[1] === "time" ? 1e6 : 1e3);
}
