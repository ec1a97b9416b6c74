import type { Hono } from "hono";
import { liveNodes, queueStates } from "../../admin/fleet.ts";
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

/** A page without it is better than none. */
const fleetOf = (gateway: GatewayContext) =>
  Promise.all([liveNodes(gateway), queueStates(gateway)]).then(
    ([nodes, queues]) => ({ nodes, queues }),
    () => undefined,
  );
