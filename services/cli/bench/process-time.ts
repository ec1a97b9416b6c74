import { readdirSync, readFileSync } from "node:fs";
import { readState } from "../instance/state-file.ts";

/** Clock ticks a second in /proc (sysconf(_SC_CLK_TCK) is 100 on every Linux of today), ms each. */
const TICK_MS = 10;

/** Processor time that the processes of an instance have used so far, ms, by part; `client` is this process. */
export function processTimes(stateFile: string): Record<string, number> {
  const times: Record<string, number> = {
    client: (process.cpuUsage().user + process.cpuUsage().system) / 1000,
  };
  const services = Object.entries(readState(stateFile)?.services ?? {});
  const owner = new Map<number, string>(services.map(([name, { pid }]) => [pid, name]));
  const processes = allProcesses();
  for (const [pid, { usedMs }] of processes) {
    const name = ownerOf(pid, owner, processes);
    if (name === undefined) continue;
    // What sandboxd has started are sandboxes.
    const part = name === "sandboxd" && !owner.has(pid) ? "sandboxes" : name;
    times[part] = (times[part] ?? 0) + usedMs;
  }
  return times;
}

/** What was used between two readings, µs for each of so many requests. Processes that began or ended meanwhile make it rough. */
export function perRequest(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
  requests: number,
): Record<string, number> {
  const each: Record<string, number> = {};
  for (const [part, ms] of Object.entries(after))
    each[part] = Math.round((Math.max(0, ms - (before[part] ?? 0)) * 1000) / Math.max(1, requests));
  return each;
}

interface Process {
  parent: number;
  usedMs: number;
}

function allProcesses(): Map<number, Process> {
  const found = new Map<number, Process>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "latin1");
      // The name, in parentheses, may hold anything: state, parent, … utime and stime are the 12th and 13th fields after it (proc_pid_stat(5)).
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const ticks = Number(fields[11]) + Number(fields[12]);
      found.set(Number(name), { parent: Number(fields[1]), usedMs: ticks * TICK_MS });
    } catch {
      // It has ended.
    }
  }
  return found;
}

function ownerOf(
  pid: number,
  owner: ReadonlyMap<number, string>,
  processes: ReadonlyMap<number, Process>,
): string | undefined {
  for (
    let at: number | undefined = pid;
    at !== undefined && at > 1;
    at = processes.get(at)?.parent
  ) {
    const name = owner.get(at);
    if (name !== undefined) return name;
  }
  return undefined;
}
