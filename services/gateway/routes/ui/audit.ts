import type { Hono } from "hono";
import { isTenantId } from "#contracts/tenant";
import { readAudit } from "#db/audit";
import { tenantNames } from "#db/tenants";
import type { GatewayContext } from "../../gateway-context.ts";
import { auditPage } from "../../ui/audit-view.ts";
import { auditQuery } from "../admin/admin-schemas.ts";
import { adminOnly, show, tenantFor, type UiEnv } from "./ui-env.ts";

const PAGE = 50;

/** What admins changed: all of it for the operator, what concerns their own tenant for others. */
export function registerAuditPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  ui.get("/audit", adminOnly, async (c) => {
    const viewer = c.get("viewer");
    const { tenant, ...query } = c.req.query();
    const { action, before, key } = auditQuery.shape;
    const asked = {
      action: action.safeParse(query.action || undefined).data,
      before: before.safeParse(query.before || undefined).data,
      keyId: key.safeParse(query.key || undefined).data,
    };
    let tenantId: string | undefined;
    if (!viewer.operator) tenantId = viewer.tenant.id;
    // Deleted tenants have entries too.
    else if (tenant && isTenantId(tenant)) tenantId = tenant;
    else if (tenant) tenantId = (await tenantFor(gateway, viewer, tenant)).id;
    const found = await readAudit(gateway.db, {
      limit: PAGE + 1,
      ...Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined)),
      ...(tenantId === undefined ? {} : { tenantId }),
    });
    const entries = found.slice(0, PAGE);
    const next = found.length > PAGE ? entries.at(-1)?.id : undefined;
    const ids = [...new Set(entries.map((entry) => entry.tenantId))];
    const names = await tenantNames(gateway.db, ids);
    const search = { tenant, action: asked.action, key: asked.keyId };
    return show(c, auditPage(viewer, entries, names, { search, next }));
  });
}
