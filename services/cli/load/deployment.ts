import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { LoadFunction, LoadTenant, Plan } from "#loadtests/lib/plan";
import { awaitSnapshot } from "../commands/awaited-snapshot.ts";
import { EXIT, Failure, messageOf } from "../failure.ts";
import { Api, type Credentials, failureOf, segment } from "../http/api.ts";
import type { Target } from "./caller.ts";

/** Deploys at a time: each makes a snapshot. */
const AT_ONCE = 4;

const madeTenantSchema = z.looseObject({ id: z.string() });
const madeKeySchema = z.looseObject({ key: z.string() });
const deployedSchema = z.looseObject({ name: z.string(), version: z.number() });

/** The functions and tenants of one run on one service, under names that no other run has. */
export interface Deployment {
  target: Target;
  /** Removes the functions. Resolves with what could not be removed. */
  remove(): Promise<string[]>;
}

/** Whether nothing more should be begun. */
const interruption = (): Failure =>
  new Failure("The load test was interrupted.", "Run it again.", EXIT.interrupted);

export async function deployFor(
  plan: Plan,
  label: string,
  service: Credentials & { adminKey: string | undefined },
  signal: AbortSignal,
): Promise<Deployment> {
  const run = `load-${randomBytes(4).toString("hex")}`;
  const nameOf = (name: string): string => `${run}-${name}`;
  const keys = new Map<string, string>();
  for (const tenant of plan.tenants) keys.set(tenant.name, await makeTenant(tenant, run, service));
  const owner = new Map(plan.functions.map(({ name, tenant }) => [name, tenant]));
  const keyOf = (name: string): string => keys.get(owner.get(name) ?? "") ?? service.key;
  const apiOf = (name: string): Api => new Api({ url: service.url, key: keyOf(name) });
  const deployed: string[] = [];
  const remove = async (): Promise<string[]> => {
    const left: string[] = [];
    await eachAtOnce(deployed, async (name) => {
      try {
        const response = await apiOf(name).send("DELETE", `/v1/functions/${segment(nameOf(name))}`);
        await response.body?.cancel();
        if (!response.ok && response.status !== 404) left.push(nameOf(name));
      } catch {
        left.push(nameOf(name));
      }
    });
    return left;
  };
  try {
    await eachAtOnce(plan.functions, async (one) => {
      if (signal.aborted) throw interruption();
      const api = apiOf(one.name);
      const { version } = await api.json("POST", "/v1/functions", deployedSchema, {
        body: JSON.stringify(configOf(one, nameOf(one.name))),
        headers: { "content-type": "application/json" },
      });
      deployed.push(one.name);
      // Making it would be part of what is measured.
      await awaitSnapshot(api, { name: nameOf(one.name), version });
    });
    if (signal.aborted) throw interruption();
  } catch (error) {
    await remove();
    throw error;
  }
  const target: Target = {
    label,
    url: service.url,
    prefix: `${run}-`,
    addressOf: (name) => `/f/${nameOf(name)}`,
    keyOf,
  };
  return { target, remove };
}

const configOf = (
  { source, memoryMb, concurrency, isolation }: LoadFunction,
  name: string,
): Record<string, unknown> => ({
  name,
  runtime: "node24",
  files: { "index.mjs": source },
  timeoutMs: 30_000,
  ...(memoryMb === undefined ? {} : { memoryMb }),
  ...(concurrency === undefined ? {} : { concurrency }),
  ...(isolation === undefined ? {} : { isolation }),
});

/** Makes a tenant with its quota; gives a key of it. */
async function makeTenant(
  { name, tier, quota }: LoadTenant,
  run: string,
  { url, adminKey }: Credentials & { adminKey: string | undefined },
): Promise<string> {
  if (adminKey === undefined) {
    throw new Failure(
      "This scenario makes tenants, and the service's admin key is not known.",
      "Name the service's data folder with --data-dir, or set CLOISTER_ADMIN_KEY.",
    );
  }
  const admin = new Api({ url, key: adminKey });
  const init = (body: unknown): RequestInit => ({
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  const made = await admin.send(
    "POST",
    "/admin/v1/tenants",
    init({ name: `${run}-${name}`, tier }),
  );
  if (made.status === 404 || made.status === 501) {
    await made.body?.cancel();
    throw new Failure(
      `This scenario makes tenants, and the service at ${url} has no admin API.`,
      "Run it against a service of a version that has it.",
    );
  }
  if (!made.ok) throw await failureOf(made);
  const parsed = madeTenantSchema.safeParse(await made.json().catch(messageOf));
  if (!parsed.success) {
    throw new Failure(
      `${url} answered the request for a tenant with something this command does not understand.`,
      "Use the command line of the same version as the service.",
    );
  }
  const address = `/admin/v1/tenants/${segment(parsed.data.id)}`;
  const limits = await admin.send("PUT", `${address}/quota`, init(quotaOf(quota)));
  if (!limits.ok) throw await failureOf(limits);
  await limits.body?.cancel();
  const body = { name: run, scopes: ["invoke", "deploy", "read"] };
  return (await admin.json("POST", `${address}/keys`, madeKeySchema, init(body))).key;
}

/** A whole quota, since PUT replaces: null is unlimited. */
const quotaOf = (given: LoadTenant["quota"]): Record<string, unknown> => ({
  requestsPerSecond: null,
  burst: null,
  concurrency: null,
  memoryMb: null,
  gbSecondsPerMonth: null,
  functions: null,
  bundleBytes: null,
  timeoutMs: null,
  asyncBacklog: null,
  paths: ["container", "microvm"],
  minimumIsolation: null,
  ...given,
});

/** Rejects with the first failure, when what was begun has ended. */
async function eachAtOnce<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    for (;;) {
      const item = left.shift();
      if (item === undefined || failures.length > 0) return;
      await work(item).catch((error) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (failures.length > 0) throw failures[0];
}
