import { CloisterError } from "#errors/catalogue";
import type { Tier } from "./place.ts";

/** A tenant's trust may be taken away; nothing runs on what was known longer ago than this, ms. */
const FRESH_MS = 5000;
const LOAD_TIMEOUT_MS = 5000;
const MAX_TENANTS = 10_000;

/** Trust tiers of tenants, at most 5 s old. A tier that cannot be read is an error, never a guess. */
export class TierCache {
  readonly #read: (tenantId: string) => Promise<Tier>;
  readonly #tiers = new Map<string, { tier: Tier; atMs: number }>();
  readonly #loading = new Map<string, Promise<Tier>>();
  /** Rises with every `drop` and `clear`: what was read before one is not kept after it. */
  #epoch = 0;

  constructor(read: (tenantId: string) => Promise<Tier>) {
    this.#read = read;
  }

  cached(tenantId: string): Tier | undefined {
    const known = this.#tiers.get(tenantId);
    return known && performance.now() - known.atMs < FRESH_MS ? known.tier : undefined;
  }

  load(tenantId: string): Promise<Tier> {
    let loading = this.#loading.get(tenantId);
    if (!loading) {
      const begun = this.#load(tenantId).finally(() => {
        if (this.#loading.get(tenantId) === begun) this.#loading.delete(tenantId);
      });
      loading = begun;
      this.#loading.set(tenantId, begun);
    }
    return loading;
  }

  /** It is asked for anew, also by those who come while it is being read. */
  drop(tenantId: string): void {
    this.#epoch++;
    this.#tiers.delete(tenantId);
    this.#loading.delete(tenantId);
  }

  clear(): void {
    this.#epoch++;
    this.#tiers.clear();
    this.#loading.clear();
  }

  async #load(tenantId: string): Promise<Tier> {
    const atMs = performance.now();
    const epoch = this.#epoch;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer in time")), LOAD_TIMEOUT_MS);
    });
    try {
      const tier = await Promise.race([this.#read(tenantId), late]);
      if (epoch !== this.#epoch) return tier;
      this.#tiers.delete(tenantId);
      this.#tiers.set(tenantId, { tier, atMs });
      if (this.#tiers.size > MAX_TENANTS) {
        const oldest = this.#tiers.keys().next().value;
        if (oldest !== undefined) this.#tiers.delete(oldest);
      }
      return tier;
    } catch (error) {
      if (error instanceof CloisterError) throw error;
      throw new CloisterError(
        "dependency_unavailable",
        "The tenant's trust tier could not be read from the database",
      );
    } finally {
      clearTimeout(timer);
    }
  }
}
