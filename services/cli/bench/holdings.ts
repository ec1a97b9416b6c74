import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { Ground } from "./ground.ts";

/** What an instance of sandboxd holds of the machine. */
export interface Holdings {
  /** Processes in its control groups, by command line. */
  processes: string[];
  /** Folders of its control groups, in every hierarchy. */
  cgroups: string[];
  /** Mounts in sandboxd's namespace. */
  mounts: number;
  /** Memory files that sandboxd has open. */
  memfds: number;
  /** All that sandboxd has open but namespaces, of which it keeps some, at most 64 pairs, for the micro-VMs to come (runtime/container/src/namespaces.rs). */
  descriptors: number;
}

/** Ends are told when the last process has gone; what hangs on it is removed within this time, ms. */
const REMOVAL_BOUND_MS = 5000;
const LOOK_EVERY_MS = 50;

export function holdingsOf({ sandboxd }: Ground): Holdings {
  const group = `cloister-${sandboxd.instance}`;
  const links = readdirSync(`/proc/${sandboxd.pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${sandboxd.pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return {
    processes: processesIn(group),
    cgroups: foldersNamed("/sys/fs/cgroup", group, 3),
    mounts: readFileSync(`/proc/${sandboxd.pid}/mountinfo`, "latin1").split("\n").length,
    memfds: links.filter((link) => link.startsWith("/memfd:")).length,
    descriptors: links.filter((link) => !/^(net|ipc):\[/.test(link)).length,
  };
}

/** How many files a process has open, and may have. */
export const descriptorsOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;
export function descriptorLimitOf(pid: number): number {
  const limits = readFileSync(`/proc/${pid}/limits`, "latin1");
  return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? 0);
}

/** What there is more of than before, once nothing goes away any more. */
export async function leftBehind(ground: Ground, before: Holdings): Promise<string[]> {
  const until = performance.now() + REMOVAL_BOUND_MS;
  for (;;) {
    const left = beyond(holdingsOf(ground), before);
    if (left.length === 0 || performance.now() > until) return left;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

function beyond(now: Holdings, before: Holdings): string[] {
  const left: string[] = [];
  const more = (what: string, from: number, to: number): void => {
    if (to > from) left.push(`${to - from} ${what}`);
  };
  more("processes", before.processes.length, now.processes.length);
  more("control groups", before.cgroups.length, now.cgroups.length);
  more("mounts", before.mounts, now.mounts);
  more("memory files", before.memfds, now.memfds);
  more("descriptors of sandboxd", before.descriptors, now.descriptors);
  return left;
}

function processesIn(group: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      if (readFileSync(`/proc/${pid}/cgroup`, "latin1").includes(group))
        found.push(readFileSync(`/proc/${pid}/cmdline`, "latin1"));
    } catch {
      // It has ended.
    }
  }
  return found;
}

/** Folders below the one of that name, and itself, wherever it is. */
function foldersNamed(folder: string, name: string, depth: number): string[] {
  let entries: string[];
  try {
    const all = readdirSync(folder, { withFileTypes: true });
    entries = all.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name));
  } catch {
    return [];
  }
  const inside = entries.filter((path) => path.includes(name));
  const below = depth > 0 ? entries.flatMap((path) => foldersNamed(path, name, depth - 1)) : [];
  return [...inside, ...below];
}
