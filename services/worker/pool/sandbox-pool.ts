import { availableParallelism } from "node:os";
import type { Path, StartKind, VersionSpec } from "#contracts/function";
import type { SandboxFilter } from "#contracts/live-sandbox";
import { CloisterError } from "#errors/catalogue";
import type { BundleHold } from "../bundles/bundle-cache.ts";
import {
  type AssignedSandbox,
  type BootedSandbox,
  initOf,
  type ServingSandbox,
  shapeOf,
} from "../sandbox/index.ts";
import { CellMaker, endCell } from "./cell-maker.ts";
import { CLONE_AGE_MS, CloneKeeper } from "./clone-keeper.ts";
import { Endings } from "./endings.ts";
import { leaseOf } from "./entry-lease.ts";
import { ExpectedStarts } from "./expected-starts.ts";
import {
  type Entry,
  type FunctionPool,
  type Lease,
  labelOf,
  PATIENCE_MS,
  type Start,
  startOf,
  type Waiter,
} from "./function-pool.ts";
import { FunctionPools } from "./function-pools.ts";
import { MemoryBudget, type Reservation, type Yielding } from "./memory-budget.ts";
import type { PendingLease, PoolStats, SandboxPoolOptions } from "./pool-options.ts";
import { type Cell, PreparedCells } from "./prepared-cells.ts";
import { ProcessorLoad } from "./processor-load.ts";
import { RestingEntries } from "./resting-entries.ts";
import { listSandboxes } from "./sandbox-list.ts";
import { givesWay, nextStart } from "./tenant-share.ts";

export type { PendingLease, PoolStats, SandboxPoolOptions } from "./pool-options.ts";

/** A prepared cell can die between being taken and being assigned; then the next one is tried. */
const MAX_ATTEMPTS = 3;

/**
 * Hands sandboxes to invocations. Invariants: a sandbox serves one version of one tenant's function for all its life; memory is
 * reserved before a sandbox is made and until its last process is gone; there is never more than one start per waiting
 * invocation that no warm sandbox will serve soon, and a start that nobody needs any more does not begin.
 */
export class SandboxPool {
  readonly starts: ExpectedStarts;
  readonly #options: SandboxPoolOptions;
  readonly #budget: MemoryBudget;
  readonly #cells: PreparedCells;
  readonly #maker: CellMaker;
  readonly #clones: CloneKeeper;
  readonly #functions = new FunctionPools((owner) => this.#leaveEarly(owner));
  /** Starts that wait for memory or for their turn to boot, first come first served. */
  readonly #room = new Set<Start>();
  readonly #resting: RestingEntries;
  readonly #maxBooting: number;
  readonly #endings = new Endings();
  readonly #saturated: () => boolean;
  #booting = 0;
  #busy = 0;
  #closed = false;

  constructor(options: SandboxPoolOptions) {
    this.#options = options;
    const load = options.processors ?? new ProcessorLoad();
    this.#saturated = () => load.saturated(performance.now());
    this.#budget = new MemoryBudget(options.memoryMb);
    this.#cells = new PreparedCells(options.prepared, options.demandCells);
    this.starts = new ExpectedStarts(
      (spec, path) => this.#functions.find(spec, path),
      this.#cells,
      options.launcher,
    );
    this.#maxBooting = options.maxBooting ?? Math.max(4, 2 * availableParallelism());
    this.#maker = new CellMaker({
      launcher: options.launcher,
      cells: this.#cells,
      budget: this.#budget,
      mayMake: () => !this.#closed && this.#booting === 0 && this.#room.size === 0,
      booting: (change) => {
        this.#booting += change;
      },
      changed: () => this.#admit(),
      end: (sandbox) => this.#endings.add(sandbox),
      ...(options.onProblem ? { onProblem: options.onProblem } : {}),
    });
    this.#clones = new CloneKeeper({
      launcher: options.launcher,
      bundles: options.bundles,
      budget: this.#budget,
      perFunction: options.clonesPerFunction ?? 0,
      ageMs: options.cloneAgeMs ?? CLONE_AGE_MS,
      mayMake: () => !this.#closed && this.#booting === 0 && this.#room.size === 0,
      busy: this.#saturated,
      booting: (change) => {
        this.#booting += change;
      },
      find: (key) => this.#functions.byKey(key),
      owner: (spec, path) => this.#functions.of(spec, path),
      serve: (owner, assigned, reservation, hold) => {
        this.#releaseWhenGone(assigned, reservation);
        return this.#serve(owner, assigned, reservation, hold, "restored", true);
      },
      changed: (owner) => this.#balance(owner),
      retire: (entry) => this.#retire(entry),
      onProblem: (error) => this.#problem(error),
    });
    this.#resting = new RestingEntries(this.#clones.waiting, options.idleMs, (entry) =>
      this.#retire(entry),
    );
  }

  stats(): PoolStats {
    let starting = 0;
    let waiting = 0;
    for (const owner of this.#functions.all()) {
      starting += owner.running;
      waiting += owner.waiters.size + owner.behind;
    }
    return {
      warm: this.#resting.used,
      busy: this.#busy,
      prepared: this.#cells.ready,
      pooled: this.#clones.ready,
      starting,
      waiting,
      memoryReservedMb: this.#budget.reservedMb + this.#budget.yieldingMb,
    };
  }

  /** Whether calls that come would only wait behind many others for a processor. */
  get sated(): boolean {
    return this.#functions.sated(this.#saturated);
  }

  /** Versions of which a sandbox lives, at most `max`: those that began last. */
  versions(max: number): string[] {
    return this.#functions.alive(max);
  }

  /** Begins to make prepared cells, and clones where they are in demand. */
  start(): void {
    this.#maker.soon();
    this.#clones.soon();
  }

  /**
   * A warm sandbox at once, or one that comes later: freed by another invocation or newly made. The promise rejects with
   * `capacity_exhausted` after `waitMs`, or with what went wrong with the start. Throws when it can never be served. `mayQueue`: it may be `behind` others.
   */
  acquire(spec: VersionSpec, path: Path, waitMs: number, mayQueue = false): Lease | PendingLease {
    if (this.#closed) throw new CloisterError("draining");
    const owner = this.#functions.of(spec, path);
    // Who waits already comes first.
    const lease = owner.waiters.size === 0 ? this.#leaseNow(owner, mayQueue) : undefined;
    if (!lease) return this.#wait(owner, waitMs, mayQueue);
    if (lease.start !== "warm") this.#clones.took(owner);
    return lease;
  }

  /** A sandbox that is open, or a place behind others. */
  #leaseNow(owner: FunctionPool, mayQueue: boolean): Lease | undefined {
    const open = this.#leaseOpen(owner, mayQueue);
    if (open || !mayQueue) return open;
    const entry = owner.roomBehind(performance.now(), this.#saturated);
    return entry && this.#lease(entry, true, true);
  }

  /** A sandbox that is open, if a call may have one now. */
  #leaseOpen(owner: FunctionPool, mayQueue: boolean): Lease | undefined {
    for (;;) {
      const entry = owner.open[owner.open.length - 1];
      if (!entry || owner.enough(performance.now(), this.#saturated)) return undefined;
      if (entry.sandbox.alive) return this.#lease(entry, mayQueue);
      this.#retire(entry);
    }
  }

  /** Counts what is kept as long as no sandbox needs its memory. */
  yields(yielding: Yielding): void {
    this.#budget.yields(yielding);
  }

  /** Memory for a sandbox that is none of the pool's, if there is some now; to be released once, when that is gone. */
  reserve(memoryMb: number): { release(): void } | undefined {
    const reservation = this.#closed ? undefined : this.#budget.reserve(memoryMb);
    if (!reservation) return undefined;
    return {
      release: () => {
        reservation.release();
        this.#admit();
      },
    };
  }

  /** Called when a function was changed or deleted: what is idle of it leaves early, clones that wait at once. `current` is its version now. */
  supersede(functionId: string, current?: string): void {
    for (const owner of this.#functions.versionsOf(functionId))
      if (owner.spec.versionId !== current) this.#functions.supersede(owner);
    this.#clones.drop((spec) => spec.functionId === functionId && spec.versionId !== current);
  }

  /** Called when a tenant was changed, or may call no more: no clones wait for it until it calls again. */
  dropClones(tenantId: string): void {
    this.#clones.drop((spec) => spec.tenantId === tenantId);
  }

  /** What is idle of a tenant is ended, and the rest when it is done; `gone`: all of it at once, and nobody waits for it any more. */
  dismiss(tenantId: string, gone: boolean): void {
    this.dropClones(tenantId);
    for (const owner of this.#functions.all()) {
      if (owner.spec.tenantId !== tenantId) continue;
      for (const entry of [...owner.entries]) {
        this.#retire(entry);
        if (gone) this.#endSandbox(entry.sandbox);
      }
      if (!gone) continue;
      // What is being made leaves early.
      this.#functions.supersede(owner);
      for (const waiter of [...owner.waiters])
        this.#rejectWaiter(owner, waiter, new CloisterError("tenant_suspended"));
      this.#balance(owner);
    }
  }

  /** Those who have sandboxes here. */
  *tenants(): Iterable<string> {
    for (const { spec } of this.#functions.all()) yield spec.tenantId;
  }

  sandboxes(filter: SandboxFilter, limit: number): ReturnType<typeof listSandboxes> {
    return listSandboxes(this.#functions.all(), this.#cells, filter, limit);
  }

  /** Refuses new work, ends what is idle at once and the rest as it is released; resolves when all are gone or after `boundMs`. */
  async close(boundMs: number): Promise<void> {
    this.#closed = true;
    this.#maker.stop();
    this.#clones.stop();
    this.#room.clear();
    for (const owner of this.#functions.all()) {
      owner.queued.clear();
      for (const waiter of [...owner.waiters])
        this.#rejectWaiter(owner, waiter, new CloisterError("draining"));
      for (const entry of [...owner.entries]) this.#retire(entry);
    }
    for (const cell of this.#cells.clear()) this.#endings.add(endCell(cell));
    await this.#endings.settled(boundMs);
    this.#resting.clear();
  }

  /** What is idle of it leaves early, and clones that wait at once. */
  #leaveEarly(owner: FunctionPool): void {
    for (const entry of owner.entries) {
      if (entry.spare) this.#retire(entry);
      else if (entry.resting) this.#resting.add(entry);
    }
  }

  #wait(owner: FunctionPool, waitMs: number, mayQueue: boolean): PendingLease {
    const never = this.#budget.refusalOf(owner.spec.config.memoryMb);
    if (never) {
      this.#functions.forgetIfEmpty(owner);
      throw never;
    }
    const late = (): void => {
      const detail = `No sandbox became free within ${Math.max(0, Math.round(waitMs))} ms`;
      this.#rejectWaiter(owner, waiter, new CloisterError("capacity_exhausted", detail));
      this.#balance(owner);
    };
    const { waiter, promise } = owner.wait(waitMs, late, mayQueue);
    if (owner.spec.config.reuse === "fresh") this.#clones.missed(owner);
    this.#balance(owner);
    return {
      promise,
      cancel: () => {
        if (owner.leave(waiter)) this.#balance(owner);
        // Handed over in the same turn: give it back.
        else promise.then((lease) => lease.release(true)).catch(() => {});
      },
    };
  }

  #rejectWaiter(owner: FunctionPool, waiter: Waiter, error: Error): void {
    owner.leave(waiter);
    waiter.reject(error);
  }

  #lease(entry: Entry, mayQueue: boolean, behind = false): Lease {
    const { owner } = entry;
    if (!behind) entry.alone = !mayQueue;
    if (entry.active++ === 0) {
      this.#resting.rouse(entry);
      this.#busy++;
      owner.serving.add(entry);
      owner.leased(performance.now());
    }
    if (entry.active >= owner.width) owner.unlist(entry);
    if (behind) this.#recheckLater(owner);
    return leaseOf(entry, behind, ({ start }, keep) => {
      this.#release(entry, keep);
      if (start !== "warm") this.#clones.soon();
    });
  }

  #release(entry: Entry, keep: boolean): void {
    const { owner } = entry;
    if (--entry.active === 0) {
      this.#busy--;
      owner.serving.delete(entry);
      owner.freed();
    }
    if (!keep) owner.setBack();
    const fresh = owner.spec.config.reuse === "fresh";
    const resettable = !owner.superseded && !entry.retired && this.#isWorthReset(entry);
    if (!keep || this.#closed || !entry.sandbox.alive || (fresh && !resettable))
      this.#retire(entry);
    else if (this.#room.size > 0 && this.#givesWay(entry)) this.#retire(entry);
    else if (fresh) void this.#reset(entry);
    else if (!entry.retired) this.#offer(entry);
    if (entry.retired && entry.active === 0) this.#end(entry);
    if (owner.waiters.size > 0) this.#balance(owner);
  }

  #givesWay(entry: Entry): boolean {
    const functions = (): Iterable<FunctionPool> => this.#functions.all();
    const start = nextStart(this.#room, functions);
    return givesWay(entry, start, functions, this.#budget.freeSoonMb, performance.now());
  }

  /** One that would have to load its function again makes room for one that comes with it, once there is a snapshot of that. */
  #isWorthReset({ owner, sandbox }: Entry): boolean {
    if (!sandbox.resettable) return false;
    const { launcher } = this.#options;
    const shape = shapeOf(owner.spec, owner.path);
    return sandbox.loaded || launcher.restores?.(shape, owner.spec) !== true;
  }

  /** Makes a sandbox pristine for the next invocation of the same version, while nobody waits for it. */
  async #reset(entry: Entry): Promise<void> {
    const { owner } = entry;
    entry.resettingSinceMs = performance.now();
    try {
      const assigned = await entry.sandbox.reset();
      entry.sandbox = await assigned.initialise(initOf(owner.spec));
    } catch (error) {
      // Both end the sandbox. One that was ended meanwhile is no problem.
      if (!entry.retired) this.#problem(error);
      this.#retire(entry);
    }
    entry.resettingSinceMs = undefined;
    entry.firstStart = "reset";
    entry.firstPhases = entry.sandbox.phases;
    if (!entry.retired) {
      if (this.#closed || !entry.sandbox.alive) this.#retire(entry);
      else this.#offer(entry);
    }
    if (owner.waiters.size > 0) this.#balance(owner);
  }

  #problem(error: unknown): void {
    this.#options.onProblem?.(error instanceof Error ? error : new Error(String(error)));
  }

  /** Lists an entry with room as open, and gives what is open to those who wait. */
  #offer(entry: Entry): void {
    if (entry.active < entry.owner.width) entry.owner.list(entry);
    if (entry.active === 0) this.#resting.add(entry);
    this.#handOut(entry.owner);
  }

  #handOut(owner: FunctionPool): void {
    for (const waiter of owner.waiters) {
      const lease = this.#leaseNow(owner, waiter.mayQueue);
      if (!lease) return;
      owner.leave(waiter);
      waiter.resolve(lease);
    }
  }

  #retire(entry: Entry): void {
    if (entry.retired) return;
    entry.retired = true;
    entry.owner.unlist(entry);
    this.#resting.rouse(entry);
    if (entry.active === 0) this.#end(entry);
  }

  #end(entry: Entry): void {
    entry.reservation.leaving();
    this.#endSandbox(entry.sandbox);
  }

  #endSandbox(sandbox: ServingSandbox | BootedSandbox | AssignedSandbox): void {
    this.#endings.add(sandbox.end());
  }

  /** Makes the number of starts fit the number of those whom no warm sandbox will serve soon. */
  #balance(owner: FunctionPool): void {
    this.#handOut(owner);
    const nowMs = performance.now();
    const wanted = owner.wanted(nowMs, this.#saturated);
    const needed = Math.ceil(wanted / owner.width);
    if (owner.waiters.size > 0) this.#recheckLater(owner);
    let starts = owner.running + owner.queued.size;
    for (const start of owner.queued) {
      if (starts <= needed) break;
      owner.queued.delete(start);
      this.#room.delete(start);
      starts--;
    }
    for (; starts < needed; starts++) {
      const start: Start = { owner, attempts: 0 };
      owner.queued.add(start);
      this.#room.add(start);
    }
    this.#admit();
    this.#functions.forgetIfEmpty(owner);
  }

  /** What was foretold may not come true: a call may last longer than those before it. */
  #recheckLater(owner: FunctionPool): void {
    owner.recheck ??= setTimeout(() => {
      owner.recheck = undefined;
      // Answers that are here already are heard before.
      if (owner.behind > 0) setImmediate(() => owner.recallOverdue(performance.now()));
      if (owner.behind > 0) this.#recheckLater(owner);
      if (!this.#closed && owner.waiters.size > 0) this.#balance(owner);
    }, PATIENCE_MS / 2);
  }

  /** Begins starts while there is room, in the order of `nextStart`; makes room by ending what is idle. */
  #admit(): void {
    if (this.#closed) return;
    for (;;) {
      const start = nextStart(this.#room, () => this.#functions.all());
      if (!start) break;
      const shape = shapeOf(start.owner.spec, start.owner.path);
      const { memoryMb } = shape;
      const restores = this.#options.launcher.restores?.(shape, start.owner.spec) === true;
      if (!restores && this.#cells.has(shape)) {
        this.#begin(start, this.#cells.take(shape));
        continue;
      }
      if (this.#booting >= this.#maxBooting) return;
      const reservation = this.#budget.reserve(memoryMb);
      if (reservation) {
        // A miss is demand too: later starts of this shape will find a cell.
        if (!restores) this.#cells.take(shape);
        this.#begin(start, undefined, reservation);
        continue;
      }
      if (this.#budget.freeSoonMb >= memoryMb || !this.#evictOne()) return;
    }
    this.#maker.soon();
    this.#clones.soon();
  }

  #evictOne(): boolean {
    const entry = this.#resting.leastMissed();
    if (entry) {
      this.#retire(entry);
      return true;
    }
    const cell = this.#cells.evict();
    if (!cell) return false;
    cell.reservation.leaving();
    this.#endings.add(endCell(cell));
    return true;
  }

  #begin(start: Start, cell: Cell | undefined, reservation?: Reservation): void {
    this.#room.delete(start);
    start.owner.queued.delete(start);
    start.owner.running++;
    if (start.attempts++ === 0 && start.owner.spec.config.reuse !== "fresh")
      this.#clones.missed(start.owner);
    void this.#run(start, cell, reservation);
  }

  async #run(start: Start, cell: Cell | undefined, reserved?: Reservation): Promise<void> {
    const { owner } = start;
    let failure: Error | undefined;
    let retry = false;
    let hold: BundleHold | undefined;
    try {
      const bundle = this.#options.bundles.hold(owner.spec.bundleDigest);
      bundle.catch(() => {});
      if (cell) {
        const kind: StartKind = cell.booted ? "prepared" : "cold";
        const booted = await cell.booting.catch(() => undefined);
        if (!booted?.alive) {
          retry = start.attempts < MAX_ATTEMPTS;
          throw new CloisterError("sandbox_failed", "A prepared sandbox ended before it was used");
        }
        hold = await bundle.catch((error) => {
          this.#endSandbox(booted);
          throw error;
        });
        const assigned = await booted.assign(hold, labelOf(owner.spec));
        await this.#serve(owner, assigned, cell.reservation, hold, startOf(assigned, kind));
        this.#options.launcher.wantSnapshot?.(shapeOf(owner.spec, owner.path), owner.spec);
      } else {
        const reservation = reserved as Reservation;
        let assigned: AssignedSandbox;
        this.#booting++;
        try {
          hold = await bundle;
          assigned = await this.#options.launcher.launch(
            shapeOf(owner.spec, owner.path),
            labelOf(owner.spec),
            hold,
            owner.spec,
          );
        } catch (error) {
          reservation.release();
          throw error;
        } finally {
          this.#booting--;
        }
        this.#releaseWhenGone(assigned, reservation);
        this.#admit();
        await this.#serve(owner, assigned, reservation, hold, startOf(assigned, "cold"));
      }
    } catch (error) {
      hold?.release();
      failure = error instanceof Error ? error : new Error(String(error));
    }
    owner.running--;
    if (failure && retry) {
      const again: Start = { owner, attempts: start.attempts };
      owner.queued.add(again);
      this.#room.add(again);
    } else if (failure) this.#failWaiters(owner, failure);
    this.#balance(owner);
  }

  async #serve(
    owner: FunctionPool,
    assigned: AssignedSandbox,
    reservation: Reservation,
    hold: BundleHold,
    kind: StartKind,
    spare = false,
  ): Promise<Entry> {
    this.#options.observe?.(assigned, owner.spec);
    // `initialise` ends the sandbox itself when the function cannot be loaded.
    const sandbox = await assigned.initialise(initOf(owner.spec));
    const entry: Entry = {
      owner,
      sandbox,
      reservation,
      kind,
      madeAtMs: performance.now(),
      served: 0,
      active: 0,
      beganMs: 0,
      alone: false,
      filling: true,
      retired: false,
      listed: false,
      spare,
      resting: undefined,
      resettingSinceMs: undefined,
      firstStart: kind,
      firstPhases: sandbox.phases,
    };
    owner.entries.add(entry);
    void sandbox.down.then(() => {
      if (entry.spare && !entry.retired) this.#clones.died(owner);
      this.#retire(entry);
    });
    void sandbox.ended.then(() => {
      hold.release();
      owner.entries.delete(entry);
      this.#functions.forgetIfEmpty(owner);
    });
    if (this.#closed) this.#retire(entry);
    else this.#offer(entry);
    return entry;
  }

  /** A failed start is the answer for as many invocations as it would have served. */
  #failWaiters(owner: FunctionPool, failure: Error): void {
    let count = owner.width;
    for (const waiter of owner.waiters) {
      if (count-- <= 0) break;
      this.#rejectWaiter(owner, waiter, failure);
    }
  }

  #releaseWhenGone(sandbox: BootedSandbox | AssignedSandbox, reservation: Reservation): void {
    void sandbox.ended.then(() => {
      reservation.release();
      this.#admit();
    });
  }
}
