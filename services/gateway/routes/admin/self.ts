import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { SCOPES } from "#contracts/tenant";
import { readTenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../../gateway-context.ts";
import { type GatewayEnv, requireScope } from "../../middleware/caller.ts";
import { problems } from "../problem-answers.ts";
import { json, security } from "./answers.ts";

const selfSchema = z
  .object({
    keyId: z.string(),
    tenant: z.object({ id: z.string(), name: z.string() }),
    scopes: z.array(z.enum(SCOPES)),
    operator: z.boolean().describe("whether it governs all tenants, or its own one's keys only"),
  })
  .openapi("Self");

/** Whose key it is: what somebody who signs in with one may see. */
export function registerSelf(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/admin/v1/self",
      summary: "What the admin key that is used may do",
      tags: ["keys"],
      security,
      middleware: [requireScope(gateway.authenticator, "admin")] as const,
      responses: { 200: json(selfSchema, "the key and its tenant"), ...problems() },
    }),
    async (c) => {
      const { keyId, tenantId, scopes, operator } = c.get("caller");
      const tenant = await readTenant(gateway.db, tenantId);
      // Deleted since the key was looked up.
      if (!tenant) throw new CloisterError("unauthenticated", "The key is not valid");
      const { id, name } = tenant;
      return c.json({ keyId, tenant: { id, name }, scopes: [...scopes], operator }, 200);
    },
  );
}
