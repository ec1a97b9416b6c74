import type { TenantPolicy } from "#contracts/placement";
import { CloisterError } from "#errors/catalogue";

/** A tenant's trust may be taken away; nothing runs on what was known longer ago than this, ms. */
const FRESH_MS = 5000;
/** What is asked for so shortly before is read anew behind whoever asks, so that the next call need not wait, ms. */
const AHEAD_MS = 1000;
const LOAD_TIMEOUT_MS = 5000;
const MAX_TENANTS = 10_000;

interface Known {
  policy: TenantPolicy;
  atMs: number;
  /** It is being read anew, or that has failed: then whoever comes when it is too old is told. */
  ahead: boolean;
}

/** What tenants may, at most 5 s old. What cannot be read is an error, never a guess. */
export class PolicyCache {
  readonly #read: (tenantId: string) => Promise<TenantPolicy>;
  readonly #policies = new Map<string, Known>();
  /** What was read before the last one may be older than what made it necessary. */
  #drops = 0;
  readonly #loading = new Map<string, Promise<TenantPolicy>>();

  readonly #aheadMs: number;

  constructor(read: (tenantId: string) => Promise<TenantPolicy>, aheadMs = AHEAD_MS) {
    this.#read = read;
    this.#aheadMs = aheadMs;
  }

  cached(tenantId: string): TenantPolicy | undefined {
    const known = this.#policies.get(tenantId);
    if (!known) return undefined;
    const leftMs = known.atMs + FRESH_MS - performance.now();
    if (leftMs <= 0) return undefined;
    if (leftMs <= this.#aheadMs && !known.ahead) {
      known.ahead = true;
      this.load(tenantId).catch(() => {});
    }
    return known.policy;
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
      this.#policies.set(tenantId, { policy, atMs, ahead: false });
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
