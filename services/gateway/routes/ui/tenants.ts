import type { Hono } from "hono";
import { isKeyId, tierSchema } from "#contracts/tenant";
import { listKeys } from "#db/keys";
import { DEFAULT_TENANT, listTenants, type Tenant } from "#db/tenants";
import { deleteWholeTenant } from "../../admin/delete-tenant.ts";
import { etagOf, requiredBy } from "../../admin/if-match.ts";
import { originOf } from "../../admin/origin.ts";
import { addTenant, retierTenant, turnTenant } from "../../admin/tenant-changes.ts";
import { tenantOf } from "../../admin/tenant-of.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { reportQuota } from "../../quota/tenant-quota.ts";
import type { Errors } from "../../ui/forms.ts";
import { tenantPage } from "../../ui/tenant-view.ts";
import {
  deleteTenantPage,
  newTenantPage,
  type TenantSearch,
  tenantHref,
  tenantsPage,
} from "../../ui/tenants-view.ts";
import { newTenantSchema, tenantChangeSchema, tenantListQuery } from "../admin/admin-schemas.ts";
import { errorsOf, type Form, readForm, refusalOf } from "./form.ts";
import { after, saidOf } from "./said.ts";
import { adminOnly, operatorOnly, show, type UiContext, type UiEnv } from "./ui-env.ts";

/** Rows of one page. */
const PAGE = 50;

/** Tenants: find, create, look at, change, suspend, resume, delete. */
export function registerTenantPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  const { db } = gateway;

  ui.get("/tenants", operatorOnly, async (c) => {
    const { search, after: from, ...query } = c.req.query();
    const tier = tierSchema.safeParse(query.tier).data;
    const state = tenantListQuery.shape.state.safeParse(query.state).data;
    const begin = tenantListQuery.shape.after.safeParse(from).data;
    const asked: TenantSearch = { search, tier, state };
    const found = await listTenants(db, {
      limit: PAGE + 1,
      ...(search ? { search } : {}),
      ...(tier ? { tier } : {}),
      ...(state ? { active: state === "active" } : {}),
      ...(begin ? { after: begin } : {}),
    });
    const shown = found.slice(0, PAGE);
    const next = found.length > PAGE ? shown.at(-1)?.name : undefined;
    const pages = { search: asked, after: begin, next };
    return show(c, tenantsPage(c.get("viewer"), shown, pages, saidOf(c.req.query("said"))));
  });

  ui.get("/tenants/new", operatorOnly, (c) => show(c, newTenantPage(c.get("viewer"))));

  ui.post("/tenants", operatorOnly, async (c) => {
    const form = await readForm(c);
    const values = { name: form.text("name").trim(), tier: form.text("tier") };
    const refuse = (errors: Errors, status: 400 | 409 | 412) =>
      show(c, newTenantPage(c.get("viewer"), values, errors), status);
    const parsed = newTenantSchema.safeParse(values);
    if (!parsed.success)
      return refuse(errorsOf(parsed.error, { name: "Name", tier: "Trust tier" }), 400);
    try {
      const made = await addTenant(gateway, parsed.data, originOf(c));
      return c.redirect(after(tenantHref(made), "tenant-created"), 303);
    } catch (error) {
      const { status, errors } = refusalOf(error);
      return refuse({ name: errors[""] ?? "" }, status);
    }
  });

  const onePage = async (
    c: UiContext,
    tenant: Tenant,
    errors: Errors = {},
    status: 200 | 400 | 409 | 412 = 200,
  ) => {
    const [quota, found] = await Promise.all([
      reportQuota(gateway, tenant.id),
      listKeys(db, tenant.id, PAGE + 1, keyAfter(c.req.query("keysAfter"))),
    ]);
    const keys = found.slice(0, PAGE);
    const parts = {
      ...{ tenant, quota, keys, etag: etagOf(tenant) },
      operators: tenant.name === DEFAULT_TENANT,
      nextKey: found.length > PAGE ? keys.at(-1)?.id : undefined,
    };
    const said = status === 200 ? saidOf(c.req.query("said")) : undefined;
    return show(c, tenantPage(c.get("viewer"), parts, said, errors), status);
  };

  ui.get("/tenants/:tenant", adminOnly, async (c) => onePage(c, await addressed(gateway, c)));

  /** A change that the page of the tenant asks for: done, it is shown again; refused, too, with what it is now. */
  const change =
    (
      said: Parameters<typeof after>[1],
      work: (c: UiContext, tenant: Tenant, form: Form) => Promise<unknown>,
    ) =>
    async (c: UiContext) => {
      const form = await readForm(c);
      const tenant = await addressed(gateway, c);
      try {
        await work(c, tenant, form);
      } catch (error) {
        const { status, errors } = refusalOf(error);
        return onePage(c, await addressed(gateway, c), errors, status);
      }
      return c.redirect(after(tenantHref(tenant), said), 303);
    };
  const guarded = (c: UiContext, form: Form) => ({
    origin: originOf(c),
    expected: requiredBy(form.etag),
  });

  ui.post(
    "/tenants/:tenant/tier",
    operatorOnly,
    change("tenant-changed", (c, { id }, form) => {
      const { tier } = tenantChangeSchema.parse({ tier: form.text("tier") });
      return retierTenant(gateway, id, tier, guarded(c, form));
    }),
  );
  ui.post(
    "/tenants/:tenant/suspend",
    operatorOnly,
    change("tenant-suspended", (c, tenant, form) =>
      turnTenant(gateway, tenant, false, guarded(c, form)),
    ),
  );
  ui.post(
    "/tenants/:tenant/resume",
    operatorOnly,
    change("tenant-resumed", (c, tenant, form) =>
      turnTenant(gateway, tenant, true, guarded(c, form)),
    ),
  );

  ui.get("/tenants/:tenant/delete", operatorOnly, async (c) => {
    const tenant = await addressed(gateway, c);
    return show(c, deleteTenantPage(c.get("viewer"), tenant, etagOf(tenant)));
  });
  ui.post("/tenants/:tenant/delete", operatorOnly, async (c) => {
    const form = await readForm(c);
    const tenant = await addressed(gateway, c);
    try {
      const force = form.text("force") === "true";
      await deleteWholeTenant(gateway, tenant, { ...guarded(c, form), force });
    } catch (error) {
      const { status, errors } = refusalOf(error);
      const now = await addressed(gateway, c);
      return show(c, deleteTenantPage(c.get("viewer"), now, etagOf(now), errors), status);
    }
    return c.redirect(after("/ui/tenants", "tenant-deleted"), 303);
  });
}

/** The tenant of the address: for admins other than the operator, only their own is there. */
export const addressed = ({ db }: Pick<GatewayContext, "db">, c: UiContext): Promise<Tenant> =>
  tenantOf(db, c.get("viewer").caller, c.req.param("tenant") ?? "");

const keyAfter = (text: string | undefined): string | undefined =>
  text !== undefined && isKeyId(text) ? text : undefined;
