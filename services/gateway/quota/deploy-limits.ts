import type { FunctionConfig } from "#contracts/function";
import { beyondQuota } from "#contracts/quota";
import type { Database } from "#db/database";
import { readDeployQuota } from "#db/quotas";
import { quotaExceeded } from "./quota-error.ts";

/** Throws `quota_exceeded` for a version that may not be published. Gives how many functions the tenant may have, which only the publication itself can check. */
export async function refuseBeyondQuota(
  db: Database,
  tenantId: string,
  config: FunctionConfig,
  bundleBytes: number,
): Promise<number | null> {
  const found = await readDeployQuota(db, tenantId, config.name);
  // A tenant that was removed a moment ago: publishing finds that out.
  if (!found) return null;
  const { quota } = found;
  const excess = beyondQuota(config, found);
  if (excess) throw quotaExceeded(excess);
  const { bundleBytes: most, functions } = quota;
  if (most !== null && bundleBytes > most)
    throw quotaExceeded({ quota: "bundleBytes", of: "tenant", limit: most });
  return functions;
}
