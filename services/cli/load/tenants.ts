import { z } from "zod";
import { UNLIMITED } from "#contracts/quota";
import type { LoadTenant } from "#loadtests/lib/plan";
import { Failure } from "../failure.ts";
import { Api, type Credentials, segment } from "../http/api.ts";

/** A service, with the key of who may make tenants there where it is known. */
export type Governed = Credentials & { adminKey: string | undefined };

export interface MadeTenant {
  id: string;
  /** One that may deploy, invoke and read. */
  key: string;
}

const madeTenantSchema = z.looseObject({ id: z.string() });
const madeKeySchema = z.looseObject({ key: z.string() });

const init = (body: unknown): RequestInit => ({
  body: JSON.stringify(body),
  // Nobody else knows the tenant yet, so there is no other state that a change could undo.
  headers: { "content-type": "application/json", "if-match": "*" },
});

/** Makes a tenant with its quota and a key. When the second fails the first goes again. */
export async function makeTenant(
  { name, tier, quota }: LoadTenant,
  run: string,
  service: Governed,
): Promise<MadeTenant> {
  const { url, adminKey } = service;
  if (adminKey === undefined) {
    throw new Failure(
      "This scenario makes tenants, and the service's admin key is not known.",
      "Name the service's data folder with --data-dir, or set CLOISTER_ADMIN_KEY.",
    );
  }
  const admin = new Api({ url, key: adminKey });
  const wanted = init({ name: `${run}-${name}`, tier });
  const { id } = await admin.json("POST", "/admin/v1/tenants", madeTenantSchema, wanted);
  const address = `/admin/v1/tenants/${segment(id)}`;
  try {
    // PUT replaces, and what is left out is the tier's.
    const limits = init({ ...UNLIMITED, ...quota });
    await admin.json("PUT", `${address}/quota`, z.looseObject({}), limits);
    const keyed = init({ name: run, scopes: ["invoke", "deploy", "read"] });
    const { key } = await admin.json("POST", `${address}/keys`, madeKeySchema, keyed);
    return { id, key };
  } catch (error) {
    await deleteTenant(id, service);
    throw error;
  }
}

/** Deletes a tenant and all that is its, also what still runs. Whether it is gone. */
export async function deleteTenant(id: string, { url, adminKey }: Governed): Promise<boolean> {
  try {
    const admin = new Api({ url, key: adminKey ?? "" });
    const address = `/admin/v1/tenants/${segment(id)}?force=true`;
    const response = await admin.send("DELETE", address);
    await response.body?.cancel();
    return response.ok || response.status === 404;
  } catch {
    return false;
  }
}
