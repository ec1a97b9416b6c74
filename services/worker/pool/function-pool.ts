import type { StartKind, VersionSpec } from "#contracts/function";
import type { BundleHold } from "../bundles/bundle-cache.ts";
import type { ServingSandbox, StartPhases } from "../sandbox/index.ts";
import type { Reservation } from "./memory-budget.ts";

/** One sandbox that serves one version of one function of one tenant, and never anything else. */
export interface Entry {
  readonly owner: FunctionPool;
  readonly sandbox: ServingSandbox;
  readonly reservation: Reservation;
  /** Invocations it serves now. */
  active: number;
  /** Takes no more invocations; it is ended when the last one has left. */
  retired: boolean;
  /** In `owner.open`. */
  listed: boolean;
  /** How its first invocation is labelled; later ones are `warm`. */
  firstStart: StartKind | undefined;
  firstPhases: StartPhases;
}

export interface Waiter {
  readonly resolve: (lease: Lease) => void;
  readonly reject: (error: Error) => void;
  timer: NodeJS.Timeout | undefined;
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
  /** Gives the sandbox back, once. `keep: false` when it must not serve anything again. */
  release(keep: boolean): void;
}

/** Everything the pool knows of one version. */
export class FunctionPool {
  readonly key: string;
  readonly spec: VersionSpec;
  /** Invocations one sandbox serves at once. */
  readonly width: number;
  /** Entries with room, the most recently used last. */
  readonly open: Entry[] = [];
  readonly entries = new Set<Entry>();
  /** First come, first served. */
  readonly waiters = new Set<Waiter>();
  /** Starts in the queue for room, and those under way. */
  readonly queued = new Set<Start>();
  running = 0;
  /** A newer version is in use: idle sandboxes of this one leave early. */
  superseded = false;
  /** How long an invocation holds its place, ms; a decayed mean, unknown before the first. */
  #serviceMs: number | undefined;
  #lastReleaseMs = 0;
  /** Looks again whether those who wait still can. */
  recheck: NodeJS.Timeout | undefined;

  constructor(key: string, spec: VersionSpec) {
    this.key = key;
    this.spec = spec;
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

  /** An invocation has left its sandbox after `heldMs`. */
  served(heldMs: number, nowMs: number): void {
    this.#lastReleaseMs = nowMs;
    this.#serviceMs =
      this.#serviceMs === undefined ? heldMs : this.#serviceMs + (heldMs - this.#serviceMs) / 8;
  }

  /** How many of those who wait will get a place in what runs already, within `boundMs`. 0 while that cannot be foretold. */
  servedWithin(boundMs: number, nowMs: number): number {
    if (this.#serviceMs === undefined || this.spec.config.reuse === "fresh") return 0;
    let places = 0;
    for (const { retired } of this.entries) if (!retired) places += this.width;
    // Calls that last longer than they used to show by the time since the last one ended.
    const serviceMs = Math.max(this.#serviceMs, nowMs - this.#lastReleaseMs, 0.01);
    return Math.floor((places * boundMs) / serviceMs);
  }

  list(entry: Entry): void {
    if (entry.listed) return;
    entry.listed = true;
    this.open.push(entry);
  }

  unlist(entry: Entry): void {
    if (!entry.listed) return;
    entry.listed = false;
    const last = this.open.length - 1;
    if (this.open[last] === entry) this.open.pop();
    else this.open.splice(this.open.indexOf(entry), 1);
  }
}

export interface BundleSource {
  hold(digest: string): Promise<BundleHold>;
}
