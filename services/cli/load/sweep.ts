import { z } from "zod";
import { allPages } from "../commands/admin-answers.ts";
import { Api, segment } from "../http/api.ts";
import type { Governed } from "./service.ts";

const functionsSchema = z
  .looseObject({
    functions: z.array(z.looseObject({ name: z.string() })),
    next: z.string().optional(),
  })
  .transform(({ functions, next }) => ({ items: functions, next }));
const tenantsSchema = z
  .looseObject({
    tenants: z.array(z.looseObject({ id: z.string(), name: z.string() })),
    next: z.string().optional(),
  })
  .transform(({ tenants, next }) => ({ items: tenants, next }));

/** Removes what a run has made and not removed itself, because it was ended. Resolves with what is still there. */
export async function sweep(
  { url, key, adminKey }: Governed,
  run: string,
  madeTenants: boolean,
): Promise<string[]> {
  const left: string[] = [];
  const ofRun = ({ name }: { name: string }): boolean => name.startsWith(`${run}-`);
  const remove = async (api: Api, path: string, name: string): Promise<void> => {
    const response = await api.send("DELETE", path);
    await response.body?.cancel();
    if (!response.ok && response.status !== 404) left.push(name);
  };
  try {
    const api = new Api({ url, key });
    // In order of name, so what begins with the run's comes first.
    const query = new URLSearchParams({ after: run });
    const functions = await allPages(api, "/v1/functions", query, functionsSchema);
    for (const { name } of functions.filter(ofRun))
      await remove(api, `/v1/functions/${segment(name)}`, name);
    if (madeTenants && adminKey !== undefined) {
      const admin = new Api({ url, key: adminKey });
      const list = "/admin/v1/tenants";
      const tenants = await allPages(admin, list, new URLSearchParams(), tenantsSchema);
      for (const { id, name } of tenants.filter(ofRun))
        await remove(admin, `${list}/${segment(id)}?force=true`, `tenant ${name}`);
    }
  } catch {
    left.push(`what begins with ${run}-`);
  }
  return left;
}
