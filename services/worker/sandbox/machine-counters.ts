import { closeSync, openSync, readSync } from "node:fs";
import type { ExitCounts, MachineWork } from "#contracts/invocation";

const PAGE_BYTES = 4096;
const FORMAT = 1;
/** Slots of the page (vmm/README.md, "Counters"). */
const EXITS: readonly [keyof ExitCounts, number][] = [
  ["syscall", 1],
  ["fault", 2],
  ["interrupted", 3],
  ["page_unavailable", 4],
];
const GUEST_NS = 5;
const MONITOR_NS = 6;
const OTHER_CALLS = 7;
const REFUSALS = 8;
const TRACED = 17;
const FIRST_CALL = 32;
const SLOTS = PAGE_BYTES / 8;

/** An exit takes a microsecond at least; a sandbox with more threads than this cannot be. */
const MOST_EXITS_PER_MS = 1000;
const MOST_THREADS = 4096;
/** Figures of a sandbox that is younger are bounded as if it were this old, ms: clocks are read at different moments. */
const LEAST_AGE_MS = 1000;

/** The page as it stood at one moment: 64-bit slots, low word first. */
export type CountersReading = Uint32Array;

/** The page that a micro-VM's monitor counts in. What stands there is the monitor's word, so all of it is bounded. */
export class MachineCounters {
  readonly #calls: Readonly<Record<string, string>>;
  readonly #bornAt = performance.now();
  #fd: number | undefined;
  #refusalsAtEnd = 0;

  private constructor(fd: number, calls: Readonly<Record<string, string>>) {
    this.#fd = fd;
    this.#calls = calls;
  }

  /** `calls` names system calls by number. Undefined when there is no such file. */
  static open(path: string, calls: Readonly<Record<string, string>>): MachineCounters | undefined {
    try {
      return new MachineCounters(openSync(path, "r"), calls);
    } catch {
      return undefined;
    }
  }

  read(): CountersReading | undefined {
    if (this.#fd === undefined) return undefined;
    const reading = new Uint32Array(PAGE_BYTES / 4);
    try {
      if (readSync(this.#fd, reading, 0, PAGE_BYTES, 0) !== PAGE_BYTES) return undefined;
    } catch {
      return undefined;
    }
    return reading[0] === FORMAT ? reading : undefined;
  }

  /** Whether a call is being traced whose line is still to come. */
  isTracing(): boolean {
    const now = this.read();
    return now !== undefined && slotOf(now, TRACED) > 0;
  }

  /** How often memory was refused because of the limit since then, or at all; also of a machine that is gone. */
  refusalsSince(before: CountersReading | undefined): number {
    const now = this.read();
    const total = now ? slotOf(now, REFUSALS) : this.#refusalsAtEnd;
    return total - (before ? slotOf(before, REFUSALS) : 0);
  }

  /** What was done between two readings; undefined when one is missing or tells what cannot be. */
  between(
    before: CountersReading | undefined,
    after: CountersReading | undefined,
  ): MachineWork | undefined {
    if (!before || !after) return undefined;
    const ageMs = Math.max(LEAST_AGE_MS, performance.now() - this.#bornAt);
    const mostCounts = ageMs * MOST_EXITS_PER_MS * MOST_THREADS;
    const mostNs = ageMs * 1e6 * MOST_THREADS;
    let believed = true;
    const gain = (slot: number, most: number): number => {
      const value = slotOf(after, slot) - slotOf(before, slot);
      if (value < 0 || value > most) believed = false;
      return value;
    };
    const exits: ExitCounts = { syscall: 0, fault: 0, interrupted: 0, page_unavailable: 0 };
    for (const [reason, slot] of EXITS) exits[reason] = gain(slot, mostCounts);
    const syscalls: Record<string, number> = {};
    for (let slot = FIRST_CALL; slot < SLOTS; slot++) {
      // Most calls are not made by most invocations.
      if (after[slot * 2] === before[slot * 2] && after[slot * 2 + 1] === before[slot * 2 + 1])
        continue;
      const name = this.#calls[slot - FIRST_CALL] ?? "other";
      const count = gain(slot, mostCounts);
      if (count > 0) syscalls[name] = (syscalls[name] ?? 0) + count;
    }
    const others = gain(OTHER_CALLS, mostCounts);
    if (others > 0) syscalls.other = (syscalls.other ?? 0) + others;
    const guestMs = milliseconds(gain(GUEST_NS, mostNs));
    const monitorMs = milliseconds(gain(MONITOR_NS, mostNs));
    return believed ? { exits, syscalls, guestMs, monitorMs } : undefined;
  }

  close(): void {
    if (this.#fd === undefined) return;
    this.#refusalsAtEnd = this.refusalsSince(undefined);
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

const slotOf = (reading: CountersReading, slot: number): number =>
  (reading[slot * 2] as number) + (reading[slot * 2 + 1] as number) * 2 ** 32;

const milliseconds = (ns: number): number => Math.round(ns / 1000) / 1000;
