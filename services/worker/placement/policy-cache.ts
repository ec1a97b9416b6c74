import type { TenantPolicy } from "#contracts/placement";
import { CloisterError } from "#errors/catalogue";

/** A tenant's trust may be taken away; nothing runs on what was known longer ago than this, ms. */
const FRESH_MS = 5000;
const LOAD_TIMEOUT_MS = 5000;
const MAX_TENANTS = 10_000;

/** What tenants may, at most 5 s old. What cannot be read is an error, never a guess. */
export class PolicyCache {
  readonly #read: (tenantId: string) => Promise<TenantPolicy>;
  readonly #policies = new Map<string, { policy: TenantPolicy; atMs: number }>();
  /** What was read before the last one may be older than what made it necessary. */
  #drops = 0;
  readonly #loading = new Map<string, Promise<TenantPolicy>>();

  constructor(read: (tenantId: string) => Promise<TenantPolicy>) {
    this.#read = read;
  }

  cached(tenantId: string): TenantPolicy | undefined {
    const known = this.#policies.get(tenantId);
    return known && performance.now() - known.atMs < FRESH_MS ? known.policy : undefined;
  }

  load(tenantId: string): Promise<TenantPolicy> {
    let loading = this.#loading.get(tenantId);
    if (!loading) {
      const begun = this.#load(tenantId).finally(() => {
        if (this.#loading.get(tenantId) === begun) this.#loading.delete(tenantId);
      });
      loading = begun;
      this.#loading.set(tenantId, loading);
    }
    return loading;
  }

  drop(tenantId: string): void {
    this.#drops++;
    this.#loading.delete(tenantId);
    this.#policies.delete(tenantId);
  }

  clear(): void {
    this.#drops++;
    this.#loading.clear();
    this.#policies.clear();
  }

  async #load(tenantId: string): Promise<TenantPolicy> {
    const atMs = performance.now();
    const drops = this.#drops;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer in time")), LOAD_TIMEOUT_MS);
    });
    try {
      const policy = await Promise.race([this.#read(tenantId), late]);
      if (drops !== this.#drops) return policy;
      this.#policies.delete(tenantId);
      this.#policies.set(tenantId, { policy, atMs });
      if (this.#policies.size > MAX_TENANTS) {
        const oldest = this.#policies.keys().next().value;
        if (oldest !== undefined) this.#policies.delete(oldest);
      }
      return policy;
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
}
