import type { Change } from "#contracts/invocation";
import type { VersionCache } from "../invoke/version-cache.ts";
import type { PolicyCache } from "../placement/policy-cache.ts";
import type { SandboxPool } from "../pool/sandbox-pool.ts";
import type { FunctionSnapshots } from "../sandbox/index.ts";

export type TenantState = "active" | "suspended";

export interface TenantWatchOptions {
  policies: PolicyCache;
  versions: VersionCache;
  pool: Pick<SandboxPool, "dismiss" | "dropClones" | "tenants">;
  functions: FunctionSnapshots | undefined;
  /** What these tenants are; those that are gone are left out. */
  statesOf: (tenantIds: string[]) => Promise<Map<string, TenantState>>;
}

/** Sees to it that a suspended tenant keeps nothing waiting here, and one that is gone nothing at all. */
export class TenantWatch {
  readonly #options: TenantWatchOptions;

  constructor(options: TenantWatchOptions) {
    this.#options = options;
  }

  /** A tenant was changed. */
  heard({ id, suspended, deleted }: Change): void {
    // Before anything that runs is looked at: what begins from now on is asked for anew.
    this.#options.policies.drop(id);
    this.#options.pool.dropClones(id);
    if (deleted) this.#gone(id);
    else if (suspended) this.#options.pool.dismiss(id, false);
  }

  /** What was said while nobody listened here is looked up for those who have something here. */
  async catchUp(): Promise<void> {
    const { policies, pool, functions, versions, statesOf } = this.#options;
    policies.clear();
    const here = new Set([
      ...pool.tenants(),
      ...versions.tenants(),
      ...[...(functions?.states() ?? [])].map(([{ tenantId }]) => tenantId),
    ]);
    if (here.size === 0) return;
    const states = await statesOf([...here]);
    for (const id of here) {
      const state = states.get(id);
      if (state === undefined) this.#gone(id);
      else if (state === "suspended") pool.dismiss(id, false);
      pool.dropClones(id);
    }
  }

  #gone(id: string): void {
    const { pool, functions, versions } = this.#options;
    pool.dismiss(id, true);
    functions?.forgetTenant(id);
    versions.dropTenant(id);
  }
}
