import type { Hono } from "hono";
import { functionNameSchema } from "#contracts/function";
import type { SandboxFilter } from "#contracts/live-sandbox";
import { readFunction } from "#db/functions";
import { tenantNames } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import { liveNodes, liveSandboxes, queueStates } from "../../admin/fleet.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { nodesPage, queuesPage, sandboxesPage } from "../../ui/fleet-view.ts";
import { operatorOnly, show, tenantFor, type UiEnv } from "./ui-env.ts";

/** Sandboxes of one page. */
const MOST = 200;

/** Nodes, queues, sandboxes: the operator's. */
export function registerFleetPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  const { db } = gateway;

  ui.get("/nodes", operatorOnly, async (c) =>
    show(c, nodesPage(c.get("viewer"), await liveNodes(gateway))),
  );

  ui.get("/queues", operatorOnly, async (c) =>
    show(c, queuesPage(c.get("viewer"), await queueStates(gateway))),
  );

  ui.get("/sandboxes", operatorOnly, async (c) => {
    const viewer = c.get("viewer");
    const { tenant: tenantText, function: name } = c.req.query();
    const filter: SandboxFilter = {};
    if (tenantText || name) {
      // A function without a tenant is one of the operator's own.
      const tenant = await tenantFor(gateway, viewer, tenantText);
      filter.tenantId = tenant.id;
      if (name) {
        const known = functionNameSchema.safeParse(name).success;
        const one = known ? await readFunction(db, tenant.id, name) : undefined;
        if (!one)
          throw new CloisterError("function_not_found", `${tenant.name} has no function ${name}`);
        filter.functionId = one.id;
      }
    }
    const found = await liveSandboxes(gateway, filter, MOST);
    const owners = found.sandboxes.flatMap(({ tenantId }) => tenantId ?? []);
    const names = await tenantNames(db, [...new Set(owners)]);
    return show(c, sandboxesPage(viewer, found, { tenant: tenantText, function: name }, names));
  });
}
