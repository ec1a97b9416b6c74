import type { Origin } from "#db/audit";
import type { TenantTier } from "#db/keys";
import type { Expected } from "#db/revision";
import { changeTenant, createTenant, type Tenant } from "#db/tenants";
import type { GatewayContext } from "../gateway-context.ts";
import { refuseOperator } from "./tenant-of.ts";

type Gateway = Pick<GatewayContext, "db" | "changed">;

/** Who asks for a change, and of which states it may be. */
export interface AdminChange {
  origin: Origin;
  expected: Expected;
}

/** Makes a tenant. Rejects with `conflict` when the name is taken. */
export async function addTenant(
  { db, changed }: Gateway,
  wanted: Pick<Tenant, "name" | "tier">,
  origin: Origin,
): Promise<Tenant> {
  const made = await createTenant(db, wanted, origin);
  // Somebody may have looked for it before.
  await changed({ kind: "tenant", id: made.id });
  return made;
}

/** Changes its trust tier. Rejects with `tenant_not_found` or `precondition_failed`. */
export async function retierTenant(
  { db, changed }: Gateway,
  id: string,
  tier: TenantTier,
  change: AdminChange,
): Promise<Tenant> {
  const tenant = await changeTenant(db, id, { tier }, { action: "tenant.change", ...change });
  await changed({ kind: "tenant", id });
  return tenant;
}

/** Suspends it, or resumes it. Rejects as `retierTenant` does, and with `conflict` for the operator's own. */
export async function turnTenant(
  { db, changed }: Gateway,
  tenant: Tenant,
  active: boolean,
  change: AdminChange,
): Promise<Tenant> {
  if (!active) refuseOperator(tenant, "suspended");
  const { id } = tenant;
  const action = active ? "tenant.resume" : "tenant.suspend";
  const turned = await changeTenant(db, id, { active }, { action, ...change });
  // Told again even when nothing changed: whoever repeats it may know that somebody has not heard it.
  await changed({ kind: "tenant", id, ...(active ? {} : { suspended: true }) });
  return turned;
}
