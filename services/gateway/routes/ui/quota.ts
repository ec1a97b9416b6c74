import type { Hono } from "hono";
import type { QuotaField } from "#contracts/quota";
import { quotaRevision } from "#db/quotas";
import { etagOf, requiredBy } from "../../admin/if-match.ts";
import { originOf } from "../../admin/origin.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { type QuotaReport, reportQuota, setTenantQuota } from "../../quota/tenant-quota.ts";
import { QUOTA_INPUTS, type QuotaText, readQuota } from "../../ui/quota-fields.ts";
import { quotaPage } from "../../ui/quota-view.ts";
import { tenantHref } from "../../ui/tenants-view.ts";
import { type Form, readForm, refusalOf } from "./form.ts";
import { after } from "./said.ts";
import { addressed } from "./tenants.ts";
import { operatorOnly, show, type UiEnv } from "./ui-env.ts";

const tagOf = ({ stored: { tenantId, version } }: QuotaReport): string =>
  etagOf(quotaRevision(tenantId, version));

/** The form of a tenant's quota. */
export function registerQuotaPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  ui.get("/tenants/:tenant/quota", operatorOnly, async (c) => {
    const tenant = await addressed(gateway, c);
    const report = await reportQuota(gateway, tenant.id);
    return show(c, quotaPage(c.get("viewer"), tenant, report, tagOf(report)));
  });

  ui.post("/tenants/:tenant/quota", operatorOnly, async (c) => {
    const form = await readForm(c);
    const tenant = await addressed(gateway, c);
    const viewer = c.get("viewer");
    const typed = textOf(form);
    const read = readQuota(typed);
    if ("errors" in read) {
      const report = await reportQuota(gateway, tenant.id);
      // The state that was opened: what happened meanwhile is still to be noticed.
      const etag = form.etag ?? tagOf(report);
      return show(c, quotaPage(viewer, tenant, report, etag, typed, read.errors), 400);
    }
    try {
      const expected = requiredBy(form.etag);
      const change = { keyId: viewer.caller.keyId, expected, blind: false };
      await setTenantQuota(gateway, tenant, read.own, { ...change, origin: originOf(c) });
    } catch (error) {
      const { status, errors } = refusalOf(error);
      const report = await reportQuota(gateway, tenant.id);
      // After somebody else's change the form shows what holds now: what was typed rests on what is no more.
      const text = status === 412 ? undefined : typed;
      return show(c, quotaPage(viewer, tenant, report, tagOf(report), text, errors), status);
    }
    return c.redirect(after(tenantHref(tenant, "#quota"), "quota-saved"), 303);
  });
}

const textOf = (form: Form): QuotaText =>
  Object.fromEntries(QUOTA_INPUTS.map((field): [QuotaField, string] => [field, form.text(field)]));
