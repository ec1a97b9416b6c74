import { isPossible, planned, type TenantQuota } from "#contracts/quota";
import {
  type QuotaChange,
  readTenantQuota,
  replaceTenantQuota,
  type StoredQuota,
} from "#db/quotas";
import type { Tenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";
import { overUse, type QuotaUse, readQuotaUse } from "./quota-use.ts";

/** A tenant's quota beside what is used of it now. */
export interface QuotaReport {
  stored: StoredQuota;
  use: QuotaUse;
  /** Quotas that are below what is used. */
  over: string[];
}

type Reading = Pick<GatewayContext, "db" | "counters" | "readMonthTotal" | "onProblem">;

/** Rejects with `tenant_not_found`. */
export async function reportQuota(gateway: Reading, tenantId: string): Promise<QuotaReport> {
  const stored = await readTenantQuota(gateway.db, tenantId);
  if (!stored) throw noTenant(tenantId);
  return withUse(gateway, stored);
}

/** Sets it, on every gateway within a second. Rejects as `replaceTenantQuota` does, and with `bad_request` for what lets nothing run. */
export async function setTenantQuota(
  gateway: Reading & Pick<GatewayContext, "changed">,
  { id, tier }: Tenant,
  own: TenantQuota,
  change: Parameters<typeof replaceTenantQuota>[3] & QuotaChange,
): Promise<QuotaReport> {
  if (!isPossible(planned(tier, own)))
    throw new CloisterError(
      "bad_request",
      `paths: a tenant that is ${tier} runs in micro-VMs, so paths must hold microvm unless minimumIsolation is set to container`,
    );
  const stored = await replaceTenantQuota(gateway.db, id, own, change);
  if (!stored) throw noTenant(id);
  await gateway.changed({ kind: "tenant", id });
  return withUse(gateway, stored);
}

async function withUse(gateway: Reading, stored: StoredQuota): Promise<QuotaReport> {
  const use = await readQuotaUse(gateway, stored.tenantId, stored.quota);
  return { stored, use, over: overUse(stored.quota, use) };
}

/** It was removed a moment ago. */
export const noTenant = (id: string): CloisterError =>
  new CloisterError("tenant_not_found", `There is no tenant ${id}`);
