import type { Context, MiddlewareHandler } from "hono";
import type { Tenant } from "#db/tenants";
import { readTenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import { tenantOf } from "../../admin/tenant-of.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import type { GatewayVariables } from "../../middleware/caller.ts";
import type { Html } from "../../ui/html.ts";
import type { Viewer } from "../../ui/viewer.ts";

/** What the dashboard's middleware leaves for its routes. */
export interface UiEnv {
  Variables: GatewayVariables & { viewer: Viewer };
}

export type UiContext = Context<UiEnv>;

/** Answers with a page. */
export const show = (
  c: UiContext,
  page: Html,
  status: 200 | 400 | 401 | 403 | 409 | 412 | 429 = 200,
) => c.html(page, status);

/** Lets in admins: of the operator's tenant, or of their own. */
export const adminOnly: MiddlewareHandler<UiEnv> = async (c, next) => {
  if (!c.get("viewer").admin)
    throw new CloisterError("forbidden", "This needs a key with the scope admin");
  await next();
};

/** Lets in the operator. */
export const operatorOnly: MiddlewareHandler<UiEnv> = async (c, next) => {
  if (!c.get("viewer").operator)
    throw new CloisterError("forbidden", "This needs an admin key of the operator's tenant");
  await next();
};

/** Lets in who may see functions and calls. */
export const readersOnly: MiddlewareHandler<UiEnv> = async (c, next) => {
  if (!c.get("viewer").read)
    throw new CloisterError("forbidden", "This needs a key with the scope read");
  await next();
};

/** The tenant that a page is about: the reader's own, or the one that is named. For who may not see others, they do not exist. */
export async function tenantFor(
  { db }: Pick<GatewayContext, "db">,
  viewer: Viewer,
  named: string | undefined,
): Promise<Tenant> {
  const { caller, tenant, operator } = viewer;
  if (named === undefined || named === "" || named === tenant.name || named === tenant.id) {
    const own = await readTenant(db, tenant.id);
    if (own) return own;
    throw new CloisterError("tenant_not_found", "The tenant was deleted");
  }
  if (!operator) throw new CloisterError("tenant_not_found", `There is no tenant ${named}`);
  return tenantOf(db, caller, named);
}
