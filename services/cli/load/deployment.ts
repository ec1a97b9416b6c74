import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { LoadFunction, Plan } from "#loadtests/lib/plan";
import { awaitSnapshot } from "../commands/awaited-snapshot.ts";
import { EXIT, Failure } from "../failure.ts";
import { Api, type Credentials, segment } from "../http/api.ts";
import type { Target } from "./caller.ts";
import { deleteTenant, type MadeTenant, makeTenant } from "./tenants.ts";

/** Deploys at a time: each makes a snapshot. */
const AT_ONCE = 4;

const deployedSchema = z.looseObject({ name: z.string(), version: z.number() });

/** The functions and tenants of one run on one service, under names that no other run has. */
export interface Deployment {
  target: Target;
  /** Removes the functions, and the tenants with what is theirs. Resolves with what could not be removed. */
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
  const tenants = new Map<string, MadeTenant>();
  const owner = new Map(plan.functions.map(({ name, tenant }) => [name, tenant]));
  const keyOf = (name: string): string => tenants.get(owner.get(name) ?? "")?.key ?? service.key;
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
    for (const [name, { id }] of tenants)
      if (!(await deleteTenant(id, service))) left.push(`tenant ${nameOf(name)}`);
    return left;
  };
  try {
    for (const tenant of plan.tenants)
      tenants.set(tenant.name, await makeTenant(tenant, run, service));
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
    tenants: [...tenants.values()].map(({ id }) => id),
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
