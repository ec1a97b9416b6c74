import { z } from "zod";
import type { LoadTenant } from "#loadtests/lib/plan";
import { Failure } from "../failure.ts";
import { Api, type Credentials, failureOf, segment } from "../http/api.ts";

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
  const id = await admin
    .json("POST", "/admin/v1/tenants", madeTenantSchema, init({ name: `${run}-${name}`, tier }))
    .then((made) => made.id, withoutAdminApi(url));
  const address = `/admin/v1/tenants/${segment(id)}`;
  try {
    const limited = await admin.send("PUT", `${address}/quota`, init({ ...UNLIMITED, ...quota }));
    if (!limited.ok)
      throw await failureOf(limited).then((failure) => withoutAdminApi(url)(failure));
    await limited.body?.cancel();
    const wanted = init({ name: run, scopes: ["invoke", "deploy", "read"] });
    const { key } = await admin.json("POST", `${address}/keys`, madeKeySchema, wanted);
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

/** The service's own words for an address that it does not serve yet would not say what needs it. */
const withoutAdminApi =
  (url: string) =>
  (failure: unknown): never => {
    const code = failure instanceof Failure ? failure.code : undefined;
    if (code !== "not_implemented" && code !== "not_found") throw failure;
    throw new Failure(
      `This scenario makes tenants with quotas, and the service at ${url} has no admin API for them.`,
      "Run it against a service of a version that has it.",
    );
  };

/** A whole quota, since PUT replaces and what is left out is the tier's: null is unlimited. */
const UNLIMITED = {
  requestsPerSecond: null,
  burst: null,
  concurrency: null,
  memoryMb: null,
  gbSecondsPerMonth: null,
  functions: null,
  bundleBytes: null,
  timeoutMs: null,
  asyncBacklog: null,
  paths: null,
  minimumIsolation: null,
};
