import type { OpenAPIHono } from "@hono/zod-openapi";
import type { GatewayContext } from "../../gateway-context.ts";
import type { GatewayEnv } from "../../middleware/caller.ts";
import { registerAudit } from "./audit.ts";
import { registerFleet } from "./fleet.ts";
import { registerKeys } from "./keys.ts";
import { registerSelf } from "./self.ts";
import { registerTenants } from "./tenants.ts";

/** Everything under /admin/v1. */
export function registerAdmin(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  registerTenants(app, gateway);
  registerKeys(app, gateway);
  registerAudit(app, gateway);
  registerFleet(app, gateway);
  registerSelf(app, gateway);
}
