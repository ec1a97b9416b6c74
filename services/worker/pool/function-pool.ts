import { availableParallelism } from "node:os";
import type { Path, StartKind, VersionSpec } from "#contracts/function";
import type { BundleHold } from "../bundles/bundle-cache.ts";
import type { AssignedSandbox, ServingSandbox, StartPhases } from "../sandbox/index.ts";
import type { IdleSet } from "./idle-set.ts";
import type { Reservation } from "./memory-budget.ts";

/** One sandbox that serves one version of one function of one tenant, and never anything else. */
export interface Entry {
  readonly owner: FunctionPool;
  /** Another one, of the same sandbox, after a reset. */
  sandbox: ServingSandbox;
  readonly reservation: Reservation;
  /** How it began, and when it could serve. */
  readonly kind: StartKind;
  readonly madeAtMs: number;
  /** Invocations it has begun. */
  served: number;
  /** Invocations it serves now, and those that wait in it behind them. */
  active: number;
  /** When the last of them began. */
  beganMs: number;
  /** Serves a call that nobody is to wait behind. */
  alone: boolean;
  /** Gets calls that wait behind others until it has as many as it may have. */
  filling: boolean;
  /** Takes no more invocations; it is ended when the last one has left. */
  retired: boolean;
  /** In `owner.open`. */
  listed: boolean;
  /** A clone that no invocation has had. */
  spare: boolean;
  /** Where its idle time is counted. */
  resting: IdleSet<Entry> | undefined;
  /** When the reset that is under way began. */
  resettingSinceMs: number | undefined;
  /** How its next invocation is labelled, if it is to be something else than `warm`. */
  firstStart: StartKind | undefined;
  firstPhases: StartPhases;
}

export interface Waiter {
  /** It may wait in a sandbox behind others, and others behind it. */
  readonly mayQueue: boolean;
  readonly resolve: (lease: Lease) => void;
  readonly reject: (error: Error) => void;
  readonly sinceMs: number;
  readonly timer: NodeJS.Timeout;
}

/** One sandbox to be made for the waiters of a function. */
export interface Start {
  readonly owner: FunctionPool;
  attempts: number;
}

/** The right to run one invocation in a sandbox. */
export interface Lease {
  readonly sandbox: ServingSandbox;
  readonly start: StartKind;
  /** What its start took, for the one that waited for it; empty for others. */
  readonly phases: StartPhases;
  /** Part of the wait in which was made what a service would have had ready, ms; in comparisons only. */
  readonly asideMs?: number;
  /** The invocation waits in the sandbox behind others until `begins`. */
  readonly behind?: boolean;
  /** When its time began; told again where that is known better later. Undefined: it had not begun after all. */
  begins?(atMs: number | undefined): void;
  /** Gives the sandbox back, once. `keep: false` when it must not serve anything again. */
  release(keep: boolean): void;
}

/** Somebody who will get a place in a warm sandbox within this waits for it, ms: about what a start costs. */
export const PATIENCE_MS = 50;
/** Who has waited this long gets a sandbox of its own, whatever was foretold, ms. */
const LONGEST_WAIT_MS = 4 * PATIENCE_MS;
/** Between two ends of calls the worker itself may have had to wait for a processor; a longer pause is the function's, ms. */
const PAUSE_MS = PATIENCE_MS;
/** Processes that take turns stand still for shorter ones anyway, ms. */
const SHORTEST_PAUSE_MS = 10;
/** While all processors are busy, a function with this many places and calls that end gets no more. */
const PLACES_WHEN_BUSY = 2 * availableParallelism();
/** While all processors are busy, so many calls of a function whose calls want nothing but processors are under way at once. */
const CALLS_WHEN_BUSY = availableParallelism();
/** With so many calls more for each processor, one that comes later can as well wait elsewhere. */
const WAITING_WHEN_BUSY = 8;
/** The same where others wait in sandboxes, too. */
const WAITING_BESIDE = 4;
/** Calls that use a processor for this share of the time they take when nothing holds them up want hardly anything else. */
const PROCESSOR_SHARE = 0.5;
/** Calls that wait in a sandbox behind another at most, and the processor time that they will want, ms. */
const MOST_BEHIND = 15;
const BEHIND_MS = 4;
/** Calls so quick that so many may wait want one sandbox: the rest of the service has more to do for them than that, and needs the other processors. */
const MANY_BEHIND = 10;
/** Nobody waits behind calls of a function of which one of the last so many used a processor for this long, ms. */
const QUICK_CALLS = 256;
const LONG_MS = SHORTEST_PAUSE_MS;
/** Without a call's end for this long, a function's calls wait for something else than processors, ms. */
const STUCK_MS = 500;

/** What falls with `ms` at once, and rises towards it, or towards four times what it was, by one part of `parts`. */
const fallen = (known: number | undefined, ms: number, parts: number): number =>
  known === undefined || ms < known ? ms : known + (Math.min(ms, 4 * known) - known) / parts;

/** Everything the pool knows of one version on one path. */
export class FunctionPool {
  readonly key: string;
  readonly spec: VersionSpec;
  readonly path: Path;
  /** Invocations one sandbox serves at once. */
  readonly width: number;
  /** Entries with room: clones that nobody has had first, then the others, the most recently used last. */
  readonly open: Entry[] = [];
  readonly entries = new Set<Entry>();
  /** First come, first served. */
  readonly waiters = new Set<Waiter>();
  /** Entries with invocations. */
  readonly serving = new Set<Entry>();
  /** Its sandboxes let calls wait in them; known when one has served. */
  holds = false;
  /** Invocations that wait in sandboxes behind others. */
  behind = 0;
  /** Starts in the queue for room, and those under way. */
  readonly queued = new Set<Start>();
  running = 0;
  /** A newer version is in use: idle sandboxes of this one leave early. */
  superseded = false;
  /**
   * How long an invocation holds its place when nothing holds it up, ms: falls at once and rises slowly, because with more sandboxes than
   * processors every call lasts longer, and that is no reason for more sandboxes. Unknown before the first.
   */
  #serviceMs: number | undefined;
  /** The same, which rises more slowly still: many sandboxes that take turns would make it look as if calls waited for something else. */
  #leastMs: number | undefined;
  /** Processor time of a call, that of the last 16, as good as, ms. Unknown before the first. */
  #cpuMs: number | undefined;
  /** Places that invocations hold. */
  #held = 0;
  /** Calls since the last long one. */
  #quick = 0;
  /** When a call last ended, or the first of those under way began. */
  #progressMs = performance.now();
  /** Looks again whether those who wait still can. */
  recheck: NodeJS.Timeout | undefined;

  constructor(key: string, spec: VersionSpec, path: Path) {
    this.key = key;
    this.spec = spec;
    this.path = path;
    this.width = spec.config.reuse === "fresh" ? 1 : spec.config.concurrency;
  }

  get empty(): boolean {
    return (
      this.entries.size === 0 &&
      this.waiters.size === 0 &&
      this.queued.size === 0 &&
      this.running === 0
    );
  }

  /** Somebody waits for a sandbox, behind those who do already; `late` is called when none came within `waitMs`. */
  wait(
    waitMs: number,
    late: () => void,
    mayQueue = false,
  ): { waiter: Waiter; promise: Promise<Lease> } {
    const { promise, resolve, reject } = Promise.withResolvers<Lease>();
    const timer = setTimeout(late, Math.max(0, waitMs));
    const waiter: Waiter = { mayQueue, resolve, reject, sinceMs: performance.now(), timer };
    this.waiters.add(waiter);
    return { waiter, promise };
  }

  /** Waits no more, because there is a sandbox or none is wanted; false when that was so already. */
  leave(waiter: Waiter): boolean {
    clearTimeout(waiter.timer);
    return this.waiters.delete(waiter);
  }

  /** A place is taken. */
  leased(nowMs: number): void {
    if (this.#held++ === 0) this.#progressMs = nowMs;
  }

  /** An invocation has left its sandbox after `heldMs`; `cpuMs`: what that has run for it, undefined where that is not known or it never began. */
  served(heldMs: number, nowMs: number, cpuMs: number | undefined): void {
    if (cpuMs !== undefined) {
      this.#cpuMs = this.#cpuMs === undefined ? cpuMs : this.#cpuMs + (cpuMs - this.#cpuMs) / 16;
      this.#leastMs = fallen(this.#leastMs, heldMs, 1024);
      this.#quick = cpuMs > LONG_MS ? 0 : this.#quick + 1;
    }
    this.#progressMs = nowMs;
    this.#serviceMs = fallen(this.#serviceMs, heldMs, 64);
  }

  /** A place is given back. */
  freed(): void {
    this.#held--;
  }

  /**
   * Whether one more call would only take turns with those under way, though a sandbox may be free: calls of it end one after the other and
   * want nothing but processors, of which all are `busy` and each has one of them (docs/adr/0005-one-processor-for-a-call.md).
   */
  enough(nowMs: number, busy: () => boolean): boolean {
    return (
      this.#held >= this.#atOnce &&
      this.width === 1 &&
      this.spec.config.reuse !== "fresh" &&
      this.#computes &&
      nowMs - this.#progressMs < this.#overdueMs &&
      busy()
    );
  }

  /** Whether so many wait for one of those under way to end that others would only wait behind them. */
  sated(nowMs: number, busy: () => boolean): boolean {
    const each = this.#mostBehind > 0 ? WAITING_BESIDE : WAITING_WHEN_BUSY;
    return this.waiters.size > each * CALLS_WHEN_BUSY && this.enough(nowMs, busy);
  }

  /**
   * A sandbox in which one more call may wait behind those it serves, where none is to begin now: who is next there needs no worker, and neither wakes the
   * other for each call (docs/adr/0007-calls-that-wait-in-a-sandbox.md).
   */
  roomBehind(nowMs: number, busy: () => boolean): Entry | undefined {
    const most = this.#mostBehind;
    if (most === 0 || !this.enough(nowMs, busy)) return undefined;
    let found: Entry | undefined;
    for (const entry of this.serving) {
      const { retired, alone, sandbox, active } = entry;
      if (retired || alone || !sandbox.alive || !sandbox.holds || sandbox.returning) continue;
      // Several at a time, because each time wakes the sandbox.
      if (active > most) entry.filling = false;
      else if (active - 1 <= most / 2) entry.filling = true;
      if (entry.filling && active < (found?.active ?? Number.POSITIVE_INFINITY)) found = entry;
    }
    return found;
  }

  /** A call has ended badly, or is longer than most: for a while nobody waits behind others. */
  setBack(): void {
    this.#quick = 0;
  }

  /** Calls back who waits behind a call that is longer than most. */
  recallOverdue(nowMs: number): void {
    for (const { active, beganMs, sandbox } of this.serving) {
      if (active < 2 || nowMs - beganMs < PAUSE_MS) continue;
      sandbox.recall();
      this.setBack();
    }
  }

  get #atOnce(): number {
    return this.#mostBehind >= MANY_BEHIND ? 1 : CALLS_WHEN_BUSY;
  }

  get #mostBehind(): number {
    if (!this.holds || this.#quick < QUICK_CALLS || this.#cpuMs === undefined) return 0;
    return Math.min(MOST_BEHIND, Math.floor(BEHIND_MS / Math.max(0.01, this.#cpuMs)));
  }

  /** Without a call's end for this long, those under way are longer ones than most, and nobody waits for them, ms. */
  get #overdueMs(): number {
    if (this.#mostBehind > 0) return PAUSE_MS;
    return Math.min(PAUSE_MS, Math.max(SHORTEST_PAUSE_MS, 16 * (this.#leastMs ?? 0)));
  }

  /** Whether its calls want hardly anything but a processor. */
  get #computes(): boolean {
    return (this.#cpuMs ?? 0) >= PROCESSOR_SHARE * (this.#leastMs ?? Number.POSITIVE_INFINITY);
  }

  /** Invocations that what runs can serve at once. */
  get places(): number {
    let places = 0;
    for (const { retired } of this.entries) if (!retired) places += this.width;
    return places;
  }

  /**
   * How many more places those who wait need: a new one serves as many of them soon as those there are. `busy` tells whether all
   * processors have work, so that another sandbox would only take turns with those there are.
   */
  wanted(nowMs: number, busy: () => boolean): number {
    const waiting = this.waiters.size;
    if (waiting === 0) return 0;
    if (this.spec.config.reuse === "fresh") return Math.max(0, waiting - this.#resetting(nowMs));
    if (this.enough(nowMs, busy)) return 0;
    const places = this.places;
    const serviceMs = this.#serviceMs;
    const pauseMs = nowMs - this.#progressMs;
    if (pauseMs < STUCK_MS && waiting + places > PLACES_WHEN_BUSY && busy())
      return Math.max(0, PLACES_WHEN_BUSY - places);
    if (places === 0 || serviceMs === undefined) return waiting;
    // Calls that last longer than they used to show by the time since the last one ended.
    const each = Math.max(serviceMs, pauseMs > PAUSE_MS ? pauseMs : 0, 0.01);
    const soon = PATIENCE_MS / each;
    const unserved = Math.max(0, waiting - Math.floor(places * soon));
    return Math.max(Math.ceil(unserved / Math.max(1, soon)), this.#impatient(nowMs));
  }

  /** Those who have waited longest, and too long. */
  #impatient(nowMs: number): number {
    let count = 0;
    for (const { sinceMs } of this.waiters) {
      if (nowMs - sinceMs <= LONGEST_WAIT_MS) break;
      count++;
    }
    return count;
  }

  /** Sandboxes that will soon be pristine again. */
  #resetting(nowMs: number): number {
    let count = 0;
    for (const { retired, resettingSinceMs } of this.entries)
      if (!retired && resettingSinceMs !== undefined && nowMs - resettingSinceMs < PATIENCE_MS)
        count++;
    return count;
  }

  /**
   * Sandboxes that wait for an invocation which wants a pristine one. Where any invocation may have one that was used, only clones kept
   * beyond those count.
   */
  get pristine(): number {
    if (this.spec.config.reuse === "fresh")
      return this.open.length + this.#resetting(performance.now());
    let spares = 0;
    for (const { spare } of this.open) if (spare) spares++;
    return spares;
  }

  list(entry: Entry): void {
    if (entry.listed) return;
    entry.listed = true;
    if (entry.spare) this.open.unshift(entry);
    else this.open.push(entry);
  }

  unlist(entry: Entry): void {
    if (!entry.listed) return;
    entry.listed = false;
    const last = this.open.length - 1;
    if (this.open[last] === entry) this.open.pop();
    else this.open.splice(this.open.indexOf(entry), 1);
  }
}

/** What `ps` and sandboxd's list call its sandboxes. */
export const labelOf = (spec: VersionSpec): string => `${spec.name.slice(0, 48)}@${spec.version}`;

export interface BundleSource {
  hold(digest: string): Promise<BundleHold>;
}

/** What its first invocation is told: one that was brought back is `restored`, whether it waited for its function or not. */
export const startOf = (sandbox: AssignedSandbox, otherwise: StartKind): StartKind =>
  sandbox.restored ? "restored" : otherwise;
