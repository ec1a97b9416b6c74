import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** What a set of processes has cost and has, as the kernel tells root. */
export interface ProcessFacts {
  page_faults: number;
  /** Of all threads there are; those that have ended are not counted. */
  context_switches: number;
  /** No file stands behind it, a snapshot neither. */
  private_kib: number;
  /** Of files and snapshots, once for all that have the same. */
  shared_kib: number;
  /** Kinds of namespace in which the last of them is not this process's. */
  namespaces: string[];
}

const NAMESPACES = ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"] as const;

/**
 * Undefined when one of them has ended meanwhile, or there is none. Shmem (tmpfs, memfd) is counted with files, since snapshots lie there; as "own" it is
 * memory that these processes alone share: each page once, as private.
 */
export function factsOfProcesses(
  pids: readonly number[],
  shmem: "own" | "files" = "files",
): ProcessFacts | undefined {
  const last = pids.at(-1);
  if (last === undefined) return undefined;
  const facts: ProcessFacts = {
    page_faults: 0,
    context_switches: 0,
    private_kib: 0,
    shared_kib: 0,
    namespaces: [],
  };
  try {
    for (const pid of pids) {
      const [, , , , , , , minor, , major] = fieldsOf(pid);
      facts.page_faults += Number(minor) + Number(major);
      facts.context_switches += switchesOf(pid);
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
      const of = (name: string): number =>
        Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(rollup)?.[1] ?? 0);
      facts.private_kib += of("Anonymous");
      facts.shared_kib += of("Rss") - of("Anonymous");
      if (shmem !== "own") continue;
      facts.private_kib += of("Pss_Shmem");
      facts.shared_kib -= residentShmem(pid);
    }
    facts.namespaces = NAMESPACES.filter(
      (name) => readlinkSync(`/proc/${last}/ns/${name}`) !== readlinkSync(`/proc/self/ns/${name}`),
    );
  } catch {
    return undefined;
  }
  return facts;
}

/** All processes of a sandbox of sandboxd's, by its first: those in its control group, parents before children. */
export function companionsOf(first: number): number[] {
  const own = sandboxGroupOf(first);
  return own === undefined ? [] : allPids().filter((pid) => sandboxGroupOf(pid) === own);
}

/** All that has come of a process, without `except` and what has come of these; parents before children. */
export function descendantsOf(ancestor: number, except: ReadonlySet<number>): number[] {
  const children = new Map<number, number[]>();
  for (const pid of allPids())
    try {
      const parent = Number(fieldsOf(pid)[1]);
      children.set(parent, [...(children.get(parent) ?? []), pid]);
    } catch {
      // It has ended.
    }
  const found: number[] = [];
  const visit = (pid: number): void => {
    for (const child of children.get(pid) ?? []) {
      if (except.has(child)) continue;
      found.push(child);
      visit(child);
    }
  };
  visit(ancestor);
  return found;
}

const allPids = (): number[] =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);

/** Fields of proc_pid_stat(5) after the name, which may hold anything: the state is the first. */
function fieldsOf(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

function switchesOf(pid: number): number {
  let switches = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "latin1");
    for (const [, count] of status.matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)$/gm))
      switches += Number(count);
  }
  return switches;
}

function residentShmem(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^RssShmem:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
}

function sandboxGroupOf(pid: number): string | undefined {
  try {
    const groups = readFileSync(`/proc/${pid}/cgroup`, "latin1");
    return /\/cloister-[0-9a-f]{8}\/[^/\n]+/.exec(groups)?.[0];
  } catch {
    return undefined;
  }
}
