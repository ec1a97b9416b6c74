import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Ground } from "./ground.ts";

/** Clock ticks as Linux tells them to user space (sysconf(3) _SC_CLK_TCK), ms. */
const TICK_MS = 10;

/**
 * Processor time so far of all that a benchmark runs, ms: the tool itself, sandboxd, and its sandboxes with those that have ended, as their control groups' common
 * parent counts them. What the kernel does in threads of its own is not in it.
 */
export function processorMs({ sandboxd }: Ground): number {
  const { user, system } = process.cpuUsage();
  const stat = readFileSync(`/proc/${sandboxd.pid}/stat`, "latin1");
  // After the name, which may hold anything (proc_pid_stat(5)).
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  return (user + system) / 1000 + ticks * TICK_MS + sandboxesMs(`cloister-${sandboxd.instance}`);
}

/** Of a control group and all below it, in v1's hierarchy for that or in v2. */
function sandboxesMs(group: string): number {
  for (const hierarchy of ["cpuacct", "cpu,cpuacct"]) {
    const usage = join("/sys/fs/cgroup", hierarchy, group, "cpuacct.usage");
    if (existsSync(usage)) return Number(readFileSync(usage, "latin1")) / 1e6;
  }
  const stat = readFileSync(join("/sys/fs/cgroup", group, "cpu.stat"), "latin1");
  return Number(/^usage_usec (\d+)$/m.exec(stat)?.[1]) / 1000;
}
