import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { listTenants, type Tenant } from "#db/tenants";
import { deleteWholeTenant } from "../../admin/delete-tenant.ts";
import { etagOf, expectedBy, requiredBy } from "../../admin/if-match.ts";
import { originOf } from "../../admin/origin.ts";
import { addTenant, retierTenant, turnTenant } from "../../admin/tenant-changes.ts";
import { tenantOf } from "../../admin/tenant-of.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { requireOperator } from "../../middleware/admin.ts";
import { type GatewayEnv, requireScope } from "../../middleware/caller.ts";
import { jsonBody } from "../../middleware/json-body.ts";
import { problems } from "../problem-answers.ts";
import {
  ifMatch,
  newTenantSchema,
  tenantChangeSchema,
  tenantListQuery,
  tenantListSchema,
  tenantParameter,
  tenantSchema,
} from "./admin-schemas.ts";
import { body, json, security } from "./answers.ts";

const tags = ["tenants"];
const path = "/admin/v1/tenants";

const shown = (tenant: Tenant) => ({
  id: tenant.id,
  name: tenant.name,
  tier: tenant.tier,
  state: tenant.active ? ("active" as const) : ("suspended" as const),
  createdAt: tenant.createdAt.toISOString(),
  updatedAt: tenant.updatedAt.toISOString(),
  etag: etagOf(tenant),
});

/** Create, list, read, change, suspend, resume, delete. */
export function registerTenants(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  const operator = requireOperator(authenticator);

  app.openapi(
    createRoute({
      method: "post",
      path,
      summary: "Create a tenant",
      tags,
      security,
      middleware: [operator, jsonBody()] as const,
      request: body(newTenantSchema),
      responses: {
        201: json(tenantSchema, "created"),
        ...problems("bad_request", "conflict", "unsupported_media_type", "body_too_large"),
      },
    }),
    async (c) => {
      const made = await addTenant(gateway, c.req.valid("json"), originOf(c));
      return c.json(shown(made), 201, { location: `${path}/${made.id}`, etag: etagOf(made) });
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path,
      summary: "List tenants in order of name",
      tags,
      security,
      middleware: [operator] as const,
      request: { query: tenantListQuery },
      responses: { 200: json(tenantListSchema, "one page"), ...problems("bad_request") },
    }),
    async (c) => {
      const { limit, state, after, search, tier } = c.req.valid("query");
      const found = await listTenants(db, {
        limit: limit + 1,
        ...(after === undefined ? {} : { after }),
        ...(search === undefined ? {} : { search }),
        ...(tier === undefined ? {} : { tier }),
        ...(state === undefined ? {} : { active: state === "active" }),
      });
      const page = found.slice(0, limit);
      const next = found.length > limit ? page.at(-1)?.name : undefined;
      return c.json({ tenants: page.map(shown), ...(next === undefined ? {} : { next }) }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: `${path}/{tenant}`,
      summary: "Read a tenant",
      description: "An admin key of that tenant may read it too.",
      tags,
      security,
      middleware: [requireScope(authenticator, "admin")] as const,
      request: { params: tenantParameter },
      responses: { 200: json(tenantSchema, "the tenant"), ...problems("tenant_not_found") },
    }),
    async (c) => {
      const tenant = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      return c.json(shown(tenant), 200, { etag: etagOf(tenant) });
    },
  );

  app.openapi(
    createRoute({
      method: "patch",
      path: `${path}/{tenant}`,
      summary: "Change a tenant's trust tier",
      description: "It holds for what starts from then on, on every node within a second.",
      tags,
      security,
      middleware: [operator, jsonBody()] as const,
      request: { params: tenantParameter, headers: ifMatch, ...body(tenantChangeSchema) },
      responses: {
        200: json(tenantSchema, "as it is now"),
        ...problems("bad_request", "tenant_not_found", "unsupported_media_type", "body_too_large"),
        ...problems("precondition_required", "precondition_failed"),
      },
    }),
    async (c) => {
      const origin = originOf(c);
      const expected = requiredBy(c.req.valid("header")["if-match"]);
      const { id } = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      const { tier } = c.req.valid("json");
      const tenant = await retierTenant(gateway, id, tier, { origin, expected });
      return c.json(shown(tenant), 200, { etag: etagOf(tenant) });
    },
  );

  const turns = [
    [
      "suspend",
      "Refuse a tenant's new work; what runs is finished",
      "Within a second, every gateway answers its keys with 403 tenant_suspended, and no worker begins what waits in the queue. Its idle sandboxes are ended.",
      false,
    ],
    ["resume", "Serve a suspended tenant again", "Its keys work as they did.", true],
  ] as const;
  for (const [turn, summary, description, active] of turns)
    app.openapi(
      createRoute({
        method: "post",
        path: `${path}/{tenant}/${turn}`,
        summary,
        description: `${description} If it is so already, nothing changes. If-Match is honoured, and not needed.`,
        tags,
        security,
        middleware: [operator] as const,
        request: { params: tenantParameter, headers: ifMatch },
        responses: {
          200: json(tenantSchema, "as it is now"),
          ...problems("bad_request", "tenant_not_found", "conflict", "precondition_failed"),
        },
      }),
      async (c) => {
        const origin = originOf(c);
        const expected = expectedBy(c.req.valid("header")["if-match"]);
        const found = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
        const tenant = await turnTenant(gateway, found, active, { origin, expected });
        return c.json(shown(tenant), 200, { etag: etagOf(tenant) });
      },
    );

  app.openapi(
    createRoute({
      method: "delete",
      path: `${path}/{tenant}`,
      summary: "Delete a tenant and all that is its",
      description:
        "Its keys, functions, versions, snapshots and sandboxes go; records and logs stay for their time, the audit log for good. While anything of it runs this is refused, unless force=true ends that. If-Match is honoured, and not needed.",
      tags,
      security,
      middleware: [operator] as const,
      request: {
        params: tenantParameter,
        headers: ifMatch,
        query: z.object({
          force: z
            .enum(["true", "false"])
            .optional()
            .openapi({ description: "true: what runs is ended" }),
        }),
      },
      responses: {
        204: { description: "deleted" },
        ...problems("bad_request", "tenant_not_found", "conflict", "precondition_failed"),
      },
    }),
    async (c) => {
      const origin = originOf(c);
      const expected = expectedBy(c.req.valid("header")["if-match"]);
      const tenant = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      const force = c.req.valid("query").force === "true";
      await deleteWholeTenant(gateway, tenant, { origin, expected, force });
      return c.body(null, 204);
    },
  );
}
