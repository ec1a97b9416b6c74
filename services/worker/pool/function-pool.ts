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
