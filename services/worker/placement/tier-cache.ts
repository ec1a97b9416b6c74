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
      loading = this.#load(tenantId).finally(() => this.#loading.delete(tenantId));
      this.#loading.set(tenantId, loading);
    }
    return loading;
  }

  drop(tenantId: string): void {
    this.#tiers.delete(tenantId);
  }

  async #load(tenantId: string): Promise<Tier> {
    const atMs = performance.now();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer in time")), LOAD_TIMEOUT_MS);
    });
    try {
      const tier = await Promise.race([this.#read(tenantId), late]);
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
