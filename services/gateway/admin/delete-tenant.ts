import type { Origin } from "#db/audit";
import { checkExpected, type Expected } from "#db/revision";
import { changeTenant, deleteTenant, type Tenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import { askSandboxes } from "#queue/sandbox-inquiry";
import type { GatewayContext } from "../gateway-context.ts";
import { refuseOperator } from "./tenant-of.ts";

export interface DeletionOptions {
  origin: Origin;
  expected: Expected;
  /** What runs is ended instead of being a reason to refuse. */
  force: boolean;
}

/**
 * Deletes a tenant that has nothing running, or ends what runs. It is suspended first, so that nothing begins between the last look and
 * the deletion; when that look finds something it is as it was. Rejects with `conflict` or `precondition_failed`.
 */
export async function deleteWholeTenant(
  gateway: GatewayContext,
  tenant: Tenant,
  { origin, expected, force }: DeletionOptions,
): Promise<void> {
  const { db } = gateway;
  const { id, active } = tenant;
  refuseOperator(tenant, "deleted");
  checkExpected(tenant, expected);
  // A first look while it is served: what is refused then has disturbed nobody.
  if (!force) await refuseRunning(gateway, tenant);
  const setActive = async (to: boolean, of: Expected): Promise<Tenant> => {
    const action = to ? "tenant.resume" : "tenant.suspend";
    const changed = await changeTenant(db, id, { active: to }, { action, origin, expected: of });
    await gateway.changed({ kind: "tenant", id, ...(to ? {} : { suspended: true }) });
    return changed;
  };
  let still = expected;
  if (active) {
    const suspended = await setActive(false, expected);
    still = new Set([`${suspended.id}.${suspended.revision}`]);
    if (!force)
      await refuseRunning(gateway, tenant).catch(async (error: Error) => {
        await setActive(true, still);
        throw error;
      });
  }
  await deleteTenant(db, id, { origin, expected: still });
  await gateway.changed({ kind: "tenant", id, suspended: true, deleted: true });
}

/** Throws `conflict` while a node serves an invocation of the tenant, or does not say whether it does. */
async function refuseRunning(
  { producer, subscriber }: GatewayContext,
  { id, name }: Tenant,
): Promise<void> {
  const { nodes, silent } = await askSandboxes(
    { redis: producer.redis, subscriber },
    { tenantId: id },
  );
  const running = nodes.reduce((sum, node) => sum + node.running, 0);
  if (running > 0)
    throw new CloisterError(
      "conflict",
      `${name} has ${running} invocation${running === 1 ? "" : "s"} running: suspend it and try again when they have ended, or end them by force (force=true, --force)`,
    );
  if (silent.length > 0)
    throw new CloisterError(
      "conflict",
      `${silent.join(", ")} did not say whether anything of ${name} runs there: try again in some seconds, or delete it by force (force=true, --force)`,
    );
}
