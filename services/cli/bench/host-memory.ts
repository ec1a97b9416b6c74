import { readdirSync, readFileSync } from "node:fs";

/** What the machine could still give to programs, KiB (MemAvailable of proc_meminfo(5)). */
export function availableKib(): number {
  const found = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "latin1"));
  if (!found) throw new Error("/proc/meminfo has no MemAvailable");
  return Number(found[1]);
}

/** Private memory of a process and of all below it, KiB. What ended meanwhile has none. */
export function privateKibOf(pid: number): number {
  let sum = 0;
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
    for (const [, kib] of rollup.matchAll(/^Private_\w+:\s+(\d+) kB$/gm)) sum += Number(kib);
    for (const child of childrenOf(pid)) sum += privateKibOf(child);
  } catch {
    return sum;
  }
  return sum;
}

function childrenOf(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const lists = tasks.map((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "latin1"));
  return lists.flatMap((list) => list.split(" ").filter(Boolean).map(Number));
}

/** Processes and threads that the kernel still has room for. */
export function tasksFree(): number {
  const number = (path: string): number => Number(readFileSync(path, "latin1"));
  const most = Math.min(number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max"));
  const now = /\/(\d+) /.exec(readFileSync("/proc/loadavg", "latin1"));
  return most - Number(now?.[1] ?? 0);
}
