import { isTenantId, tenantNameSchema } from "#contracts/tenant";
import type { Database } from "#db/database";
import { DEFAULT_TENANT, readTenant, type Tenant, tenantByName } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import type { Caller } from "../auth/authenticator.ts";

/**
 * The tenant that an address names by its id or its name. Admins of a tenant reach their own; for them, others do not exist. Rejects with
 * `tenant_not_found`.
 */
export async function tenantOf(db: Database, caller: Caller, text: string): Promise<Tenant> {
  const found = await lookUp(db, text);
  if (found && (caller.operator || caller.tenantId === found.id)) return found;
  throw new CloisterError("tenant_not_found", `There is no tenant ${text}`);
}

/** What can be neither never reaches the database, which cannot hold every string. */
async function lookUp(db: Database, text: string): Promise<Tenant | undefined> {
  if (isTenantId(text)) return readTenant(db, text);
  return tenantNameSchema.safeParse(text).success ? tenantByName(db, text) : undefined;
}

/** Throws `conflict` for the operator's own tenant: without it nobody could undo what is done. */
export function refuseOperator({ name }: Tenant, what: string): void {
  if (name === DEFAULT_TENANT)
    throw new CloisterError("conflict", `The operator's own tenant, ${name}, cannot be ${what}`);
}
