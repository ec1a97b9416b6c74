import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { isTenantId } from "#contracts/tenant";
import { type AuditEntry, type AuditQuery, readAudit } from "#db/audit";
import { tenantOf } from "../../admin/tenant-of.ts";
import type { Caller } from "../../auth/authenticator.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { type GatewayEnv, requireScope } from "../../middleware/caller.ts";
import { problems } from "../problem-answers.ts";
import { auditPageSchema, auditQuery } from "./admin-schemas.ts";
import { json, security } from "./answers.ts";

const shown = ({ at, ...entry }: AuditEntry) => ({ ...entry, at: at.toISOString() });

/** What admins did. */
export function registerAudit(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/audit",
      summary: "What admins changed, newest first",
      description:
        "The operator sees all; an admin key of another tenant sees what was done to that tenant.",
      tags: ["audit"],
      security,
      middleware: [requireScope(authenticator, "admin")] as const,
      request: { query: auditQuery },
      responses: {
        200: json(auditPageSchema, "one page"),
        ...problems("bad_request", "tenant_not_found"),
      },
    }),
    async (c) => {
      const { limit, tenant, before, key, action, since, until } = c.req.valid("query");
      const tenantId = await ofTenant(gateway, c.get("caller"), tenant);
      const query: AuditQuery = {
        limit: limit + 1,
        ...(tenantId === undefined ? {} : { tenantId }),
        ...(before === undefined ? {} : { before }),
        ...(key === undefined ? {} : { keyId: key }),
        ...(action === undefined ? {} : { action }),
        ...(since === undefined ? {} : { since: new Date(since) }),
        ...(until === undefined ? {} : { until: new Date(until) }),
      };
      const found = await readAudit(db, query);
      const page = found.slice(0, limit);
      const next = found.length > limit ? page.at(-1)?.id : undefined;
      return c.json({ entries: page.map(shown), ...(next === undefined ? {} : { next }) }, 200);
    },
  );
}

/** Whose entries the caller is to see; undefined for all. */
async function ofTenant(
  { db }: GatewayContext,
  caller: Caller,
  asked: string | undefined,
): Promise<string | undefined> {
  if (asked === undefined) return caller.operator ? undefined : caller.tenantId;
  // Deleted tenants have entries too.
  if (caller.operator && isTenantId(asked)) return asked;
  return (await tenantOf(db, caller, asked)).id;
}
