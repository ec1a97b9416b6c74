import { isTenantId } from "#contracts/tenant";
import type { Database } from "#db/database";
import { hasUsage } from "#db/usage";
import { CloisterError } from "#errors/catalogue";
import { tenantOf } from "../admin/tenant-of.ts";
import type { Caller } from "../auth/authenticator.ts";

/**
 * The id of the tenant that an address names, as `tenantOf`; for the operator also the id of one that was removed, whose usage stays. Rejects with
 * `tenant_not_found`.
 */
export async function whoseUsage(db: Database, caller: Caller, text: string): Promise<string> {
  try {
    return (await tenantOf(db, caller, text)).id;
  } catch (error) {
    const unknown = error instanceof CloisterError && error.code === "tenant_not_found";
    if (unknown && caller.operator && isTenantId(text) && (await hasUsage(db, text))) return text;
    throw error;
  }
}
