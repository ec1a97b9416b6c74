import { RefreshingCache } from "#cache/refreshing-cache";
import type { TenantPolicy } from "#contracts/placement";
import { CloisterError } from "#errors/catalogue";

/** A tenant's trust may be taken away; nothing runs on what was known longer ago than this, ms. */
const FRESH_MS = 5000;
/** What is asked for so shortly before is read anew behind whoever asks, so that the next call need not wait, ms. */
const AHEAD_MS = 1000;
const LOAD_TIMEOUT_MS = 5000;
const MAX_TENANTS = 10_000;

/** What tenants may, at most 5 s old. What cannot be read is an error, never a guess. */
export class PolicyCache {
  readonly #cache: RefreshingCache<TenantPolicy>;

  constructor(read: (tenantId: string) => Promise<TenantPolicy>, aheadMs = AHEAD_MS) {
    this.#cache = new RefreshingCache({
      load: (tenantId) => inTime(read(tenantId)),
      freshMs: FRESH_MS,
      aheadMs,
      absentMs: 0,
      staleMs: 0,
      maxEntries: MAX_TENANTS,
      onProblem() {},
    });
  }

  cached(tenantId: string): TenantPolicy | undefined {
    return this.#cache.cached(tenantId);
  }

  async load(tenantId: string): Promise<TenantPolicy> {
    // There is none without one: whoever is no tenant is an error of the source.
    return (await this.#cache.load(tenantId)) as TenantPolicy;
  }

  drop(tenantId: string): void {
    this.#cache.forget(tenantId);
  }

  clear(): void {
    this.#cache.drop(() => true);
  }
}

async function inTime(reading: Promise<TenantPolicy>): Promise<TenantPolicy> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), LOAD_TIMEOUT_MS);
  });
  try {
    return await Promise.race([reading, late]);
  } catch (error) {
    if (error instanceof CloisterError) throw error;
    throw new CloisterError(
      "dependency_unavailable",
      "The policy of the tenant could not be read from the database",
    );
  } finally {
    clearTimeout(timer);
  }
}
