/** A frozen micro-VM that sandboxd holds. */
export interface Snapshot {
  id: string;
  bytes: number;
}

export interface SnapshotBounds {
  count: number;
  bytes: number;
}

/** sandboxd's own (runtime/sandboxd/README.md). */
const BOUNDS: SnapshotBounds = { count: 64, bytes: 2 * 1024 ** 3 };
/** What a snapshot whose size is not known yet is taken for, bytes: more than a small function on Node has. */
const EXPECTED_BYTES = 96 * 1024 ** 2;

/** Which snapshots sandboxd holds for this worker, by what they are of, and which go when there is no room for another. */
export class SnapshotStore {
  /** The one unused longest first. */
  readonly #held = new Map<string, Snapshot>();
  readonly #forget: (id: string) => Promise<void>;
  readonly #bounds: SnapshotBounds;
  readonly #lost: (key: string) => void;
  #largest = EXPECTED_BYTES;

  /** `forget` tells sandboxd; `lost` hears of each one that goes to make room. */
  constructor(
    forget: (id: string) => Promise<void>,
    lost: (key: string) => void = () => {},
    bounds: SnapshotBounds = BOUNDS,
  ) {
    this.#forget = forget;
    this.#lost = lost;
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#held.size;
  }

  has(key: string): boolean {
    return this.#held.has(key);
  }

  /** The id to start from; it is then the one used last. */
  use(key: string): string | undefined {
    const snapshot = this.#held.get(key);
    if (!snapshot) return undefined;
    this.#held.delete(key);
    this.#held.set(key, snapshot);
    return snapshot.id;
  }

  /** Forgets those unused longest until one more, as large as the largest so far, has room. Resolves when sandboxd has let go of them. */
  async makeRoom(): Promise<void> {
    const expected = Math.min(this.#largest, this.#bounds.bytes / 4);
    let total = 0;
    for (const { bytes } of this.#held.values()) total += bytes;
    const going: Promise<void>[] = [];
    for (const [key, snapshot] of this.#held) {
      if (this.#held.size < this.#bounds.count && total + expected <= this.#bounds.bytes) break;
      total -= snapshot.bytes;
      going.push(this.#drop(key, snapshot));
      this.#lost(key);
    }
    await Promise.all(going);
  }

  /** The one unused longest goes, when sandboxd has said that it can hold no more. False when there is none. */
  async evictOne(): Promise<boolean> {
    for (const [key, snapshot] of this.#held) {
      const gone = this.#drop(key, snapshot);
      this.#lost(key);
      await gone;
      return true;
    }
    return false;
  }

  add(key: string, snapshot: Snapshot): void {
    const before = this.#held.get(key);
    if (before) void this.#drop(key, before);
    this.#held.set(key, snapshot);
    this.#largest = Math.max(this.#largest, snapshot.bytes);
  }

  /** Forgets one, if it is still that one when an id is given. */
  drop(key: string, id?: string): boolean {
    const snapshot = this.#held.get(key);
    if (!snapshot || (id !== undefined && snapshot.id !== id)) return false;
    void this.#drop(key, snapshot);
    return true;
  }

  /** They went with their sandboxd. */
  clear(): void {
    this.#held.clear();
  }

  #drop(key: string, { id }: Snapshot): Promise<void> {
    this.#held.delete(key);
    // One that sandboxd does not know is gone already, which is what is wanted.
    return this.#forget(id).catch(() => {});
  }
}
