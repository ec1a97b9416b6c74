import { CloisterError } from "#errors/catalogue";

export interface RefreshingCacheOptions<V> {
  load: (key: string) => Promise<V | undefined>;
  /** How long a value is taken without asking again, ms. */
  freshMs: number;
  /** A value that is wanted so shortly before it is no longer fresh is asked for behind whoever wants it, so that the next one need not wait, ms. */
  aheadMs: number;
  /** How long nothing (`undefined`) is taken without asking again, ms. */
  absentMs: number;
  /** While the source is away a value may be this old, ms: long enough for a restart, too short to forget a revocation for good. */
  staleMs: number;
  /** Entries at most; the oldest leave first. */
  maxEntries: number;
  onProblem: (error: Error) => void;
}

interface Entry<V> {
  value: V | undefined;
  loadedAtMs: number;
  freshUntilMs: number;
  /** From then on it is asked for ahead, once. */
  aheadFromMs: number;
}

/** While the source is away it is asked this often, ms. */
const RETRY_MS = 1000;
/** A source that takes longer is treated as away when an older value is at hand, ms. */
const PATIENCE_MS = 1000;

/**
 * Values of a slow source, kept in memory for a moment. Callers of one key share its load. When the source fails, an older value serves
 * within `staleMs`; without one the answer is `dependency_unavailable`.
 */
export class RefreshingCache<V> {
  readonly #options: RefreshingCacheOptions<V>;
  readonly #entries = new Map<string, Entry<V>>();
  readonly #loading = new Map<string, Promise<V | undefined>>();
  /** Rises with every `drop`, `forget` and `expire`: what was read before one may not be kept after it, and is given to nobody who comes after it. */
  #epoch = 0;

  constructor(options: RefreshingCacheOptions<V>) {
    this.#options = options;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The value at once when it is fresh, else a promise of it. */
  get(key: string): V | undefined | Promise<V | undefined> {
    const entry = this.#fresh(key);
    return entry ? entry.value : this.#refresh(key, this.#entries.get(key));
  }

  /** The value if it is fresh; undefined where it would have to be asked for. */
  cached(key: string): V | undefined {
    return this.#fresh(key)?.value;
  }

  /** Asked for in any case, with all who ask now. Rejects as the source does. */
  load(key: string): Promise<V | undefined> {
    let loading = this.#loading.get(key);
    if (!loading) {
      const begun = this.#load(key).finally(() => {
        if (this.#loading.get(key) === begun) this.#loading.delete(key);
      });
      loading = begun;
      this.#loading.set(key, loading);
    }
    return loading;
  }

  /** Forgets one. */
  forget(key: string): void {
    this.#epoch++;
    this.#loading.clear();
    this.#entries.delete(key);
  }

  /** Forgets what `matches`, and everything that was not there. */
  drop(matches: (value: V) => boolean): void {
    this.#epoch++;
    this.#loading.clear();
    for (const [key, { value }] of this.#entries)
      if (value === undefined || matches(value)) this.#entries.delete(key);
  }

  /** Everything is asked for again; what is known still serves while the source is away. */
  expire(): void {
    this.#epoch++;
    this.#loading.clear();
    for (const entry of this.#entries.values()) entry.freshUntilMs = 0;
  }

  async #refresh(key: string, old: Entry<V> | undefined): Promise<V | undefined> {
    const { staleMs, onProblem } = this.#options;
    try {
      const usable = old !== undefined && performance.now() - old.loadedAtMs < staleMs;
      return await (usable ? withPatience(this.load(key)) : this.load(key));
    } catch (error) {
      onProblem(error instanceof Error ? error : new Error(String(error)));
      const now = performance.now();
      if (old && now - old.loadedAtMs < staleMs) {
        old.freshUntilMs = now + RETRY_MS;
        return old.value;
      }
      throw new CloisterError("dependency_unavailable", "The database cannot be reached");
    }
  }

  #fresh(key: string): Entry<V> | undefined {
    const entry = this.#entries.get(key);
    const now = performance.now();
    if (!entry || now >= entry.freshUntilMs) return undefined;
    if (now >= entry.aheadFromMs) {
      entry.aheadFromMs = Number.POSITIVE_INFINITY;
      // If it fails, whoever comes once the value is no longer fresh is told.
      this.load(key).catch(() => {});
    }
    return entry;
  }

  async #load(key: string): Promise<V | undefined> {
    const epoch = this.#epoch;
    // It is as old as the question.
    const now = performance.now();
    const value = await this.#options.load(key);
    // Something changed while it was read: this answer is for those who asked before.
    if (epoch !== this.#epoch) return value;
    const { freshMs, aheadMs, absentMs, maxEntries } = this.#options;
    const absent = value === undefined;
    const freshUntilMs = now + (absent ? absentMs : freshMs);
    const aheadFromMs = absent ? Number.POSITIVE_INFINITY : freshUntilMs - aheadMs;
    this.#entries.delete(key);
    this.#entries.set(key, { value, loadedAtMs: now, freshUntilMs, aheadFromMs });
    if (this.#entries.size > maxEntries) {
      const oldest = this.#entries.keys().next().value;
      if (oldest !== undefined) this.#entries.delete(oldest);
    }
    return value;
  }
}

async function withPatience<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("The database is slow to answer")), PATIENCE_MS);
  });
  // It may still fail when nobody waits for it any more.
  promise.catch(() => {});
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
