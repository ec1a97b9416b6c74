import type { Hono } from "hono";
import { isKeyId } from "#contracts/tenant";
import { issueKey, type KeySummary, readKeySummary } from "#db/keys";
import type { Tenant } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import { etagOf, requiredBy } from "../../admin/if-match.ts";
import { endKey, renewKey } from "../../admin/key-changes.ts";
import { originOf } from "../../admin/origin.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import type { Errors } from "../../ui/forms.ts";
import { clearKeyPage, newKeyPage, revokeKeyPage, rotateKeyPage } from "../../ui/keys-view.ts";
import { tenantHref } from "../../ui/tenants-view.ts";
import { newKeySchema, rotationSchema } from "../admin/admin-schemas.ts";
import { errorsOf, readForm, refusalOf } from "./form.ts";
import { after } from "./said.ts";
import { addressed } from "./tenants.ts";
import { adminOnly, show, type UiContext, type UiEnv } from "./ui-env.ts";

const LABELS = { name: "Name", scopes: "It may", expiresAt: "Expires" };

/** Keys of a tenant: create, rotate, revoke. */
export function registerKeyPages(ui: Hono<UiEnv>, gateway: GatewayContext): void {
  ui.get("/tenants/:tenant/keys/new", adminOnly, async (c) =>
    show(c, newKeyPage(c.get("viewer"), await addressed(gateway, c))),
  );

  ui.post("/tenants/:tenant/keys", adminOnly, async (c) => {
    const form = await readForm(c);
    const tenant = await addressed(gateway, c);
    const expiresAt = form.text("expiresAt");
    const values = { name: form.text("name"), scopes: form.all("scopes"), expiresAt };
    const refuse = (errors: Errors, status: 400 | 409 | 412) =>
      show(c, newKeyPage(c.get("viewer"), tenant, values, errors), status);
    const parsed = newKeySchema.safeParse({
      name: values.name,
      scopes: values.scopes,
      ...(expiresAt === "" ? {} : { expiresAt: utc(expiresAt) }),
    });
    if (!parsed.success) return refuse(errorsOf(parsed.error, LABELS), 400);
    const { name, scopes, expiresAt: until } = parsed.data;
    try {
      const wanted = { name, scopes, ...(until === undefined ? {} : { expiresAt: until }) };
      const made = await issueKey(gateway.db, tenant.id, wanted, originOf(c));
      return show(c, clearKeyPage(c.get("viewer"), tenant, made, "The key was created."));
    } catch (error) {
      const { status, errors } = refusalOf(error);
      return refuse(errors, status);
    }
  });

  ui.get("/tenants/:tenant/keys/:key/rotate", adminOnly, async (c) => {
    const { tenant, key } = await keyOf(gateway, c);
    return show(c, rotateKeyPage(c.get("viewer"), tenant, key, etagOf(key)));
  });
  ui.post("/tenants/:tenant/keys/:key/rotate", adminOnly, async (c) => {
    const form = await readForm(c);
    const { tenant, key } = await keyOf(gateway, c);
    const parsed = rotationSchema.safeParse({
      graceMs: Number(form.text("graceMs") || Number.NaN),
    });
    if (!parsed.success)
      throw new CloisterError("bad_request", "graceMs is not one of the choices");
    try {
      const change = { origin: originOf(c), expected: requiredBy(form.etag) };
      const made = await renewKey(gateway, key, parsed.data.graceMs, change);
      return show(c, clearKeyPage(c.get("viewer"), tenant, made, "The key has a new secret."));
    } catch (error) {
      const { status, errors } = refusalOf(error);
      const now = (await keyOf(gateway, c)).key;
      return show(c, rotateKeyPage(c.get("viewer"), tenant, now, etagOf(now), errors), status);
    }
  });

  ui.get("/tenants/:tenant/keys/:key/revoke", adminOnly, async (c) => {
    const { tenant, key } = await keyOf(gateway, c);
    return show(c, revokeKeyPage(c.get("viewer"), tenant, key, etagOf(key)));
  });
  ui.post("/tenants/:tenant/keys/:key/revoke", adminOnly, async (c) => {
    const form = await readForm(c);
    const { tenant, key } = await keyOf(gateway, c);
    try {
      const change = { origin: originOf(c), expected: requiredBy(form.etag) };
      await endKey(gateway, key, change);
    } catch (error) {
      const { status, errors } = refusalOf(error);
      const now = (await keyOf(gateway, c)).key;
      return show(c, revokeKeyPage(c.get("viewer"), tenant, now, etagOf(now), errors), status);
    }
    return c.redirect(after(tenantHref(tenant, "#keys"), "key-revoked"), 303);
  });
}

/** What a browser sends of a date and time, which names no zone, as UTC. */
const utc = (text: string): string =>
  /^\d{4}-\d\d-\d\dT\d\d:\d\d$/.test(text) ? `${text}:00Z` : `${text}Z`;

async function keyOf(
  gateway: GatewayContext,
  c: UiContext,
): Promise<{ tenant: Tenant; key: KeySummary }> {
  const tenant = await addressed(gateway, c);
  const id = c.req.param("key") ?? "";
  const key = isKeyId(id) ? await readKeySummary(gateway.db, tenant.id, id) : undefined;
  if (!key) throw new CloisterError("key_not_found", `The tenant has no key ${id}`);
  return { tenant, key };
}
