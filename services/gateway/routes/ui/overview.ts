import type { Hono } from "hono";
import { readNodes } from "#queue/nodes";
import type { GatewayContext } from "../../gateway-context.ts";
import { reportQuota } from "../../quota/tenant-quota.ts";
import { overviewPage } from "../../ui/overview-view.ts";
import { show, tenantFor, type UiEnv } from "./ui-env.ts";

/** The first page. */
export function registerOverview(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  ui.get("/", async (c) => {
    const viewer = c.get("viewer");
    const tenant = await tenantFor(gateway, viewer, undefined);
    const [quota, fleet] = await Promise.all([
      reportQuota(gateway, tenant.id),
      viewer.operator ? fleetOf(gateway) : undefined,
    ]);
    return show(c, overviewPage(viewer, { tenant, quota, fleet }));
  });
}

const fleetOf = async ({ producer }: GatewayContext) => {
  try {
    const [nodes, queues] = await Promise.all([readNodes(producer.redis), producer.states()]);
    return { nodes, queues };
  } catch {
    return undefined;
  }
};
