/** Times of calls that are looked at together, ms: the clock of a processor and the file of the kernel are too coarse, and too dear, for each short call. */
const WINDOW_MS = 10;
/** After such a rest what was done meanwhile belongs to no call, ms. */
const REST_MS = 100;

/** What the kernel has counted of a thread so far: `/proc/PID/schedstat` (Documentation/scheduler/sched-stats.rst). */
export interface Scheduling {
  /** On a processor, ms. */
  ranMs: number;
  /** Ready to run, and waiting for a processor, ms. */
  waitedMs: number;
}

/** The first two figures of the file, in ns; undefined where it does not hold them. */
export function schedulingOf(text: string | undefined): Scheduling | undefined {
  const [ran, waited] =
    /^(\d+) (\d+) /
      .exec(text ?? "")
      ?.slice(1)
      .map(Number) ?? [];
  if (ran === undefined || waited === undefined) return undefined;
  return { ranMs: ran / 1e6, waitedMs: waited / 1e6 };
}

/**
 * The share of its calls' time in which a sandbox waited for a processor. It is the kernel's word, which no code in the sandbox can change. Only the
 * first thread of the runner is looked at; what the others and its children ran, which the group's processor time tells, waited as much for each ms.
 */
export class ProcessorWait {
  readonly #read: () => Scheduling | undefined;
  #before: Scheduling | undefined;
  /** The reading before was made for the call under way. */
  #single = false;
  /** Time with calls since then, and the group's processor time of them, ms. */
  #busyMs = 0;
  #cpuMs = 0;
  /** When the first of the calls under way began, and until when time with calls has been counted. */
  #fromMs = Number.NEGATIVE_INFINITY;
  #untilMs = Number.NEGATIVE_INFINITY;
  #share: number | undefined;

  constructor(read: () => Scheduling | undefined) {
    this.#read = read;
  }

  /** What comes until the next call belongs to none. */
  rest(): void {
    this.#before = undefined;
  }

  /** A call begins; `idle` when no other is under way. */
  begins(nowMs: number, idle: boolean): void {
    if (!idle) return;
    this.#fromMs = nowMs;
    if (this.#before && nowMs - this.#untilMs < REST_MS) return;
    this.#begin(this.#read());
    this.#single = true;
  }

  /**
   * A call ends; `cpuMs` is what the group has run since the last one ended. Gives the share of lately, from 0 to 1, or undefined
   * as long as it is not known.
   */
  ends(nowMs: number, cpuMs: number | undefined): number | undefined {
    this.#busyMs += Math.max(0, nowMs - Math.max(this.#fromMs, this.#untilMs));
    this.#cpuMs += cpuMs ?? 0;
    this.#untilMs = nowMs;
    if (this.#busyMs >= WINDOW_MS || this.#single) {
      const before = this.#before;
      const now = this.#read();
      if (before && now && this.#busyMs > 0) this.#share = this.#shareOf(before, now);
      this.#begin(now);
    }
    return this.#share;
  }

  #begin(reading: Scheduling | undefined): void {
    this.#before = reading;
    this.#single = false;
    this.#busyMs = 0;
    this.#cpuMs = 0;
  }

  #shareOf(before: Scheduling, now: Scheduling): number {
    const ranMs = now.ranMs - before.ranMs;
    const others = ranMs > 0 ? Math.max(1, this.#cpuMs / ranMs) : 1;
    const waitedMs = Math.max(0, now.waitedMs - before.waitedMs) * others;
    return Math.round(Math.min(1, waitedMs / this.#busyMs) * 1000) / 1000;
  }
}
