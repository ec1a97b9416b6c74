import type { Path, VersionSpec } from "#contracts/function";
import type { BundleHold } from "../bundles/bundle-cache.ts";
import {
  type AssignedSandbox,
  CLONE_WARM_TURNS,
  type SandboxLauncher,
  type ServingSandbox,
  shapeOf,
} from "../sandbox/index.ts";
import { CloneDemand } from "./clone-demand.ts";
import { type BundleSource, type Entry, type FunctionPool, labelOf } from "./function-pool.ts";
import { IdleSet } from "./idle-set.ts";
import type { MemoryBudget, Reservation } from "./memory-budget.ts";

export interface CloneKeeperOptions {
  launcher: SandboxLauncher;
  bundles: BundleSource;
  budget: MemoryBudget;
  /** Clones that wait for the calls of one version, at most; 0: none ever. */
  perFunction: number;
  /** Longest that one waits, ms. */
  ageMs: number;
  /** Whether nobody waits for a sandbox whom making one would slow down. */
  mayMake: () => boolean;
  /** Whether all processors have work. */
  busy: (nowMs: number) => boolean;
  /** Counts what is being made. */
  booting: (change: 1 | -1) => void;
  /** What the pool knows of a version; `owner` begins to where it knows nothing. */
  find: (key: string) => FunctionPool | undefined;
  owner: (spec: VersionSpec, path: Path) => FunctionPool;
  /** A clone to be kept, or to be given to somebody who waits by now. */
  serve: (
    owner: FunctionPool,
    assigned: AssignedSandbox,
    reservation: Reservation,
    hold: BundleHold,
  ) => Promise<Entry>;
  /** One less is on its way. */
  changed: (owner: FunctionPool) => void;
  /** Ends one. */
  retire: (entry: Entry) => void;
  onProblem: (error: unknown) => void;
}

/** They are made this long after the last call that wanted one, so that its answer is out, ms. */
const DELAY_MS = 10;
/** While all processors are busy this long passes until it is looked again, ms. */
const BUSY_DELAY_MS = 200;
/** On a node that is never idle one is made this often all the same: a hundredth of a processor's time, ms. */
const BUSY_TURN_MS = 2000;
/** One that takes longer to come back, by its function's hooks, does not hold up those of others, ms. */
const TURN_MS = 250;
/** Longest that one waits, when nothing else is asked for: what its hooks drew or opened when it came back should not be old, ms. */
export const CLONE_AGE_MS = 60_000;
/** Clones that wait on one node. */
const MOST = 32;
/** Part of the node's memory that may be promised to those that wait. */
const MEMORY_SHARE = 0.25;

interface Wanted {
  readonly spec: VersionSpec;
  readonly path: Path;
  readonly demand: CloneDemand;
}

/**
 * Keeps a few clones of each function that is in demand, brought back from its snapshot before a call wants one. They are made one at a time, beside the
 * calls, hardly any while all processors are busy, and never by ending anything, and are the first to go when there is no room for something else.
 */
export class CloneKeeper {
  readonly #options: CloneKeeperOptions;
  readonly #wanted = new Map<string, Wanted>();
  /** Those that no call has had. */
  readonly waiting: IdleSet<Entry>;
  #timer: NodeJS.Timeout | undefined;
  #making = false;
  #madeAtMs = performance.now();
  #stopped = false;

  constructor(options: CloneKeeperOptions) {
    this.#options = options;
    this.waiting = new IdleSet(options.ageMs, (entry) => {
      options.retire(entry);
      this.soon();
    });
  }

  /** How many are back, and wait. */
  get ready(): number {
    let ready = 0;
    for (const { sandbox } of this.waiting.items()) if (!sandbox.returning) ready++;
    return ready;
  }

  /** A call took a sandbox that nobody had used since it was made, or pristine again. */
  took(owner: FunctionPool): void {
    this.#demandOf(owner)?.took(performance.now());
  }

  /** A call needed one, and none was there. */
  missed(owner: FunctionPool): void {
    this.#demandOf(owner)?.missed(performance.now());
  }

  /** One ended by itself while it waited. */
  died(owner: FunctionPool): void {
    this.#demandOf(owner)?.failed(performance.now());
  }

  soon(delayMs = DELAY_MS): void {
    if (this.#stopped || this.#timer || this.#wanted.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#look();
    }, delayMs);
    this.#timer.unref();
  }

  /** Keeps none of these versions any more, until they are in demand again. */
  drop(which: (spec: VersionSpec) => boolean): void {
    for (const [key, { spec }] of this.#wanted) if (which(spec)) this.#wanted.delete(key);
    for (const entry of this.waiting.items())
      if (which(entry.owner.spec)) this.#options.retire(entry);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.waiting.clear();
  }

  #demandOf({ key, spec, path, superseded }: FunctionPool): CloneDemand | undefined {
    if (path !== "microvm" || superseded || this.#options.perFunction === 0) return undefined;
    let wanted = this.#wanted.get(key);
    if (!wanted) {
      wanted = { spec, path, demand: new CloneDemand() };
      this.#wanted.set(key, wanted);
    }
    return wanted.demand;
  }

  #look(): void {
    const { mayMake, busy } = this.#options;
    // Whoever ends what stands in the way asks again.
    if (this.#stopped || this.#making || !mayMake()) return;
    const nowMs = performance.now();
    const most = this.#mostLacking(nowMs);
    if (!most) return;
    if (nowMs - this.#madeAtMs < BUSY_TURN_MS && busy(nowMs)) {
      this.soon(BUSY_DELAY_MS);
      return;
    }
    const reservation = this.#reserve(most.spec.config.memoryMb);
    if (!reservation) return;
    this.#making = true;
    this.#madeAtMs = nowMs;
    void this.#make(most, reservation).then(() => {
      this.#making = false;
      this.soon();
    });
  }

  #mostLacking(nowMs: number): Wanted | undefined {
    const { perFunction, launcher, find } = this.#options;
    let most: Wanted | undefined;
    let mostLack = 0;
    for (const [key, wanted] of this.#wanted) {
      const { spec, path, demand } = wanted;
      if (demand.forgotten(nowMs)) {
        this.#wanted.delete(key);
        continue;
      }
      const lack = demand.wanted(nowMs, perFunction) - (find(key)?.pristine ?? 0);
      // Whether there is a snapshot is the dearest question.
      if (lack <= mostLack || launcher.restores?.(shapeOf(spec, path), spec) !== true) continue;
      most = wanted;
      mostLack = lack;
    }
    return most;
  }

  #reserve(memoryMb: number): Reservation | undefined {
    const { budget } = this.#options;
    if (this.waiting.size >= MOST) return undefined;
    let kept = memoryMb;
    for (const { reservation } of this.waiting.items()) kept += reservation.memoryMb;
    if (kept > budget.totalMb * MEMORY_SHARE) return undefined;
    return memoryMb > budget.freeMb - budget.yieldingMb ? undefined : budget.reserve(memoryMb);
  }

  /** Resolves when the next may be made. Never rejects. */
  async #make(wanted: Wanted, reservation: Reservation): Promise<void> {
    const { spec, path, demand } = wanted;
    const { launcher, bundles, booting, serve, changed, onProblem } = this.#options;
    const owner = this.#options.owner(spec, path);
    const beganMs = performance.now();
    let hold: BundleHold | undefined;
    let entry: Entry | undefined;
    let held = false;
    owner.running++;
    booting(1);
    try {
      hold = await bundles.hold(spec.bundleDigest);
      const shape = shapeOf(spec, path);
      const turns = CLONE_WARM_TURNS;
      const assigned = await launcher.bringBack?.(shape, labelOf(spec), hold, spec, turns);
      held = assigned !== undefined;
      if (assigned) entry = await serve(owner, assigned, reservation, hold);
    } catch (error) {
      onProblem(error);
    }
    if (!held) reservation.release();
    if (!entry) {
      hold?.release();
      demand.failed(performance.now());
    }
    booting(-1);
    owner.running--;
    // Dropped while it was made.
    if (entry?.spare && this.#wanted.get(owner.key) !== wanted) this.#options.retire(entry);
    changed(owner);
    if (entry) await this.#turn(entry.sandbox, demand, beganMs);
  }

  async #turn(sandbox: ServingSandbox, demand: CloneDemand, beganMs: number): Promise<void> {
    const back = sandbox.back.then(
      () => {
        demand.made(performance.now() - beganMs);
        // What it took to come back is no call's.
        if (sandbox.invocations === 0) sandbox.cpuDeltaMs();
      },
      () => demand.failed(performance.now()),
    );
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, TURN_MS);
    });
    await Promise.race([back, late]);
    clearTimeout(timer);
  }
}
