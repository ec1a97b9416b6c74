import type { Entry } from "./function-pool.ts";
import { IdleSet } from "./idle-set.ts";

/** Idle sandboxes of a version that a newer one has replaced, ms. */
const SUPERSEDED_IDLE_MS = 10_000;

/** Sandboxes without work: each is in the set in which its time is counted, which `retire` hears the end of. */
export class RestingEntries {
  readonly #spare: IdleSet<Entry>;
  readonly #superseded: IdleSet<Entry>;
  readonly #current: IdleSet<Entry>;

  /** `spare` is for clones that nobody has had. */
  constructor(spare: IdleSet<Entry>, idleMs: number, retire: (entry: Entry) => void) {
    this.#spare = spare;
    this.#superseded = new IdleSet(Math.min(idleMs, SUPERSEDED_IDLE_MS), retire);
    this.#current = new IdleSet(idleMs, retire);
  }

  /** How many have served. */
  get used(): number {
    return this.#superseded.size + this.#current.size;
  }

  /** Its idle time begins. */
  add(entry: Entry): void {
    this.rouse(entry);
    const used = entry.owner.superseded ? this.#superseded : this.#current;
    entry.resting = entry.spare ? this.#spare : used;
    entry.resting.add(entry);
  }

  rouse(entry: Entry): void {
    entry.resting?.delete(entry);
    entry.resting = undefined;
  }

  /** The first to go for something else. */
  leastMissed(): Entry | undefined {
    return this.#spare.oldest() ?? this.#superseded.oldest() ?? this.#current.oldest();
  }

  clear(): void {
    this.#superseded.clear();
    this.#current.clear();
  }
}
