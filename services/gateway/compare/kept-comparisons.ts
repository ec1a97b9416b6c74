import type { CompareProgress, Comparison } from "#contracts/comparison";
import type { Path, StartKind } from "#contracts/function";
import { newId } from "#contracts/ids";
import type { CloisterError } from "#errors/catalogue";
import type { BegunComparison } from "./comparisons.ts";

/** What is kept of one gateway's comparisons. Those that run count, and are never dropped: there are two at most. */
export interface KeptBounds {
  all: number;
  ofTenant: number;
  bytes: number;
  ageMs: number;
}
const BOUNDS: KeptBounds = { all: 50, ofTenant: 5, bytes: 8 * 1024 * 1024, ageMs: 3_600_000 };

/** How far one start of one path is, rounds that do not count among its runs. */
export interface CellProgress {
  path: Path;
  start: StartKind;
  runs: number;
  failed: number;
  lastMs?: number;
  failure?: string;
}

export type Outcome = { result: Comparison } | { problem: CloisterError };

/** One comparison that a person has started: how far it is, and what came of it. */
export class KeptComparison {
  readonly id = newId("cmp");
  readonly tenantId: string;
  readonly name: string;
  readonly version: number;
  readonly call: string;
  readonly startedAtMs = Date.now();
  done = 0;
  of = 0;
  readonly cells = new Map<string, CellProgress>();
  outcome: Outcome | undefined;
  /** Of its result as JSON. */
  bytes = 0;
  /** Resolves when it has ended, however. */
  ended: Promise<void> = Promise.resolve();
  readonly #stop = new AbortController();
  readonly #watchers = new Set<() => void>();

  constructor({ target, call }: BegunComparison) {
    this.tenantId = target.tenantId;
    this.name = target.name;
    this.version = target.version;
    this.call = call;
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  /** Ends it with what it has measured. */
  stop(): void {
    this.#stop.abort();
  }

  /** Calls `changed` after each step and at the end; what is given back ends that. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  advance({ done, of, path, start, ms, failure }: CompareProgress): void {
    this.done = done;
    this.of = of;
    const key = `${path} ${start}`;
    const cell = this.cells.get(key) ?? { path, start, runs: 0, failed: 0 };
    cell.runs++;
    if (ms !== undefined) cell.lastMs = ms;
    if (failure !== undefined) {
      cell.failed++;
      cell.failure = failure;
    }
    this.cells.set(key, cell);
    this.#tell();
  }

  finish(outcome: Outcome): void {
    this.outcome = outcome;
    this.bytes = "result" in outcome ? Buffer.byteLength(JSON.stringify(outcome.result)) : 0;
    this.#tell();
  }

  #tell(): void {
    for (const changed of this.#watchers) changed();
  }
}

/** Comparisons by their id, in memory: those that run, and the newest of those that have ended. */
export class KeptComparisons {
  readonly #bounds: KeptBounds;
  /** The oldest first. */
  readonly #kept = new Map<string, KeptComparison>();

  constructor(bounds: KeptBounds = BOUNDS) {
    this.#bounds = bounds;
  }

  /** Runs it to its end, whoever watches; `drained` ends it, too. */
  start(
    begun: BegunComparison,
    drained: AbortSignal,
    known: (error: unknown) => CloisterError,
  ): KeptComparison {
    const one = new KeptComparison(begun);
    this.#kept.set(one.id, one);
    one.ended = begun
      .run({
        signal: AbortSignal.any([drained, one.signal]),
        onProgress: (progress) => one.advance(progress),
      })
      .then(
        (result) => one.finish({ result }),
        (error: unknown) => one.finish({ problem: known(error) }),
      )
      .then(() => this.#shrink());
    this.#shrink();
    return one;
  }

  /** The tenant's own; undefined for any other, and for one that is kept no more. */
  find(tenantId: string, id: string): KeptComparison | undefined {
    this.#shrink();
    const one = this.#kept.get(id);
    return one?.tenantId === tenantId ? one : undefined;
  }

  /** Those of a tenant's function, the newest first. */
  of(tenantId: string, name: string): KeptComparison[] {
    this.#shrink();
    return [...this.#kept.values()]
      .filter((one) => one.tenantId === tenantId && one.name === name)
      .reverse();
  }

  /** The one of this tenant that still runs. */
  running(tenantId: string): KeptComparison | undefined {
    return [...this.#kept.values()].find((one) => one.tenantId === tenantId && !one.outcome);
  }

  #shrink(): void {
    const { all, ofTenant, bytes, ageMs } = this.#bounds;
    const oldest = Date.now() - ageMs;
    const counts = new Map<string, number>();
    let [count, sum] = [0, 0];
    // From the newest: what does not fit any more is older than all that is kept.
    for (const one of [...this.#kept.values()].reverse()) {
      const mine = (counts.get(one.tenantId) ?? 0) + 1;
      const fits =
        count < all && mine <= ofTenant && sum + one.bytes <= bytes && one.startedAtMs >= oldest;
      if (one.outcome && !fits) {
        this.#kept.delete(one.id);
        continue;
      }
      counts.set(one.tenantId, mine);
      count++;
      sum += one.bytes;
    }
  }
}
