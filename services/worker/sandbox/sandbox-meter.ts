import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { dirname, join } from "node:path";
import type { MachineWork } from "#contracts/invocation";
import { type CountersReading, MachineCounters } from "./machine-counters.ts";
import { ProcessorWait, schedulingOf } from "./processor-wait.ts";

/** A kernel file that sandboxd's create reply names. */
export interface StatFile {
  path: string;
  /** `faults`: stat of a process (proc_pid_stat(5)). */
  format: "ns" | "bytes" | "usage_usec" | "faults";
}

export interface StatFiles {
  cpu?: StatFile;
  memoryPeak?: StatFile;
  /** Where a micro-VM's monitor counts, and the names of what it counts. */
  counters?: { path: string; calls: Readonly<Record<string, string>> };
  /** The sandbox's first process: a micro-VM's monitor, or a container's init, whose only child is the runner. */
  pid?: number;
}

/** What had been done when it was read. */
export interface WorkReading {
  counters: CountersReading | undefined;
  pageFaults: number | undefined;
}

const buffer = Buffer.allocUnsafe(1024);

/**
 * CPU time and peak memory of one sandbox, read from its cgroup through descriptors that stay open: two reads of some
 * microseconds, no round trip. A figure the kernel does not give is undefined, never zero.
 */
export class SandboxMeter {
  readonly #cpu: OpenStat | undefined;
  readonly #memoryPeak: OpenStat | undefined;
  readonly #counters: MachineCounters | undefined;
  readonly #pid: number | undefined;
  readonly #isMachine: boolean;
  readonly #statFile: string | undefined;
  #faults: OpenStat | undefined;
  #scheduling: OpenStat | undefined;
  /** How much of its calls' time it waits for a processor. */
  readonly processorWait = new ProcessorWait(() => schedulingOf(this.#scheduling?.text()));
  /** Page faults when they were last read. */
  #lastFaults: number | undefined;
  /** What was read last. */
  #last: WorkReading | undefined;

  constructor(files: StatFiles) {
    this.#cpu = OpenStat.open(files.cpu);
    this.#memoryPeak = OpenStat.open(files.memoryPeak);
    const { counters, pid } = files;
    this.#counters = counters && MachineCounters.open(counters.path, counters.calls);
    this.#pid = pid;
    this.#isMachine = counters !== undefined;
    if (files.memoryPeak) this.#statFile = join(dirname(files.memoryPeak.path), "memory.stat");
  }

  /** To be called once the runner is there, and while the sandbox is. */
  findRunner(): void {
    if (this.#pid === undefined || this.#faults) return;
    try {
      const runner = this.#isMachine ? this.#pid : childOf(this.#pid);
      if (!(runner > 0)) return;
      this.#faults = OpenStat.open({ path: `/proc/${runner}/stat`, format: "faults" });
      this.#scheduling = OpenStat.open({ path: `/proc/${runner}/schedstat`, format: "ns" });
    } catch {
      // Another PID namespace, or a kernel without this file: page faults and waits for a processor are then not told.
    }
  }

  /**
   * What has been done so far. When there was no invocation since the last reading (`idle`), page faults are taken from that: the
   * kernel gathers a process's stat from all its threads, which is the dearest of these reads.
   */
  work(idle = false): WorkReading {
    if (!idle || this.#lastFaults === undefined) this.#lastFaults = this.#faults?.read();
    this.#last = { counters: this.#counters?.read(), pageFaults: this.#lastFaults };
    return this.#last;
  }

  /** What `work` gave last: when the invocation before ended, for one that began with that. */
  get lastWork(): WorkReading {
    return this.#last ?? this.work();
  }

  /** What has been done since. */
  workSince(before: WorkReading): Partial<MachineWork> & { pageFaults?: number } {
    const after = this.work();
    const faults =
      before.pageFaults === undefined || after.pageFaults === undefined
        ? undefined
        : after.pageFaults - before.pageFaults;
    return {
      ...this.#counters?.between(before.counters, after.counters),
      ...(faults === undefined ? {} : { pageFaults: faults }),
    };
  }

  /** CPU time since the sandbox began, ms. */
  cpuMs(): number | undefined {
    return this.#cpu?.read();
  }

  /** Most memory the sandbox has had so far, bytes. */
  memoryPeakBytes(): number | undefined {
    return this.#memoryPeak?.read();
  }

  /** Memory charged to the sandbox that no file stands behind (memory.stat), KiB. Opens a file: not for every call. */
  privateKib(): number | undefined {
    if (this.#statFile === undefined) return undefined;
    let text: string;
    try {
      text = readFileSync(this.#statFile, "latin1");
    } catch {
      return undefined;
    }
    const bytes = (...names: string[]): number | undefined => {
      for (const name of names) {
        const found = new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1];
        if (found !== undefined) return Number(found);
      }
      return undefined;
    };
    // Version 1 calls anonymous pages rss, and counts shared memory among caches.
    const anonymous = bytes("anon", "total_rss", "rss");
    const shared = bytes("total_shmem", "shmem") ?? 0;
    return anonymous === undefined ? undefined : Math.round((anonymous + shared) / 1024);
  }

  /** Whether a micro-VM's monitor has lines of a trace still to write. */
  isTracing(): boolean {
    return this.#counters?.isTracing() === true;
  }

  /** Whether a micro-VM refused memory because of the limit since then, or at all. */
  memoryRefused(since?: WorkReading): boolean {
    return (this.#counters?.refusalsSince(since?.counters) ?? 0) > 0;
  }

  close(): void {
    this.#cpu?.close();
    this.#memoryPeak?.close();
    this.#counters?.close();
    this.#faults?.close();
    this.#scheduling?.close();
  }
}

const childOf = (pid: number): number =>
  Number.parseInt(readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1"), 10);

class OpenStat {
  readonly #format: StatFile["format"];
  #fd: number | undefined;

  private constructor(fd: number, format: StatFile["format"]) {
    this.#fd = fd;
    this.#format = format;
  }

  static open(file: StatFile | undefined): OpenStat | undefined {
    if (!file) return undefined;
    try {
      return new OpenStat(openSync(file.path, "r"), file.format);
    } catch {
      return undefined;
    }
  }

  read(): number | undefined {
    const bytes = this.#fill();
    if (bytes === undefined) return undefined;
    if (this.#format === "faults") return faultsOf(buffer.subarray(0, bytes));
    const text = buffer.toString("latin1", 0, bytes);
    if (this.#format === "usage_usec") {
      const match = /^usage_usec (\d+)$/m.exec(text);
      return match ? Number(match[1]) / 1000 : undefined;
    }
    const value = Number.parseInt(text, 10);
    if (!Number.isFinite(value)) return undefined;
    return this.#format === "ns" ? value / 1e6 : value;
  }

  /** All that stands there. */
  text(): string | undefined {
    const bytes = this.#fill();
    return bytes === undefined ? undefined : buffer.toString("latin1", 0, bytes);
  }

  /** How much of the buffer it fills. */
  #fill(): number | undefined {
    if (this.#fd === undefined) return undefined;
    try {
      return readSync(this.#fd, buffer, 0, buffer.length, 0);
    } catch {
      // The cgroup is gone with its sandbox.
      return undefined;
    }
  }

  close(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

const SPACE = 0x20;
const ZERO = 0x30;

/** Minor and major faults in a process's stat, read without making texts of its 52 fields. */
function faultsOf(stat: Buffer): number | undefined {
  // The name, in parentheses, may hold anything; the faults are the 8th and 10th fields after it.
  const name = stat.lastIndexOf(")");
  if (name < 0) return undefined;
  let at = name + 2;
  let faults = 0;
  for (let field = 1; field <= 10; field++) {
    let value = 0;
    for (; at < stat.length && stat[at] !== SPACE; at++)
      value = value * 10 + (stat[at] as number) - ZERO;
    if (at++ === stat.length) return undefined;
    if (field === 8 || field === 10) faults += value;
  }
  return faults;
}
