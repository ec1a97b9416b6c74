import { z } from "zod";
import type { Api } from "../http/api.ts";
import { segment } from "../http/api.ts";

/** What the admin API answers, as far as the commands need it. */
export const tenantSchema = z.looseObject({
  id: z.string(),
  name: z.string(),
  tier: z.string(),
  state: z.string(),
  createdAt: z.string(),
  updatedAt: z.string(),
  etag: z.string(),
});
export type Tenant = z.infer<typeof tenantSchema>;

export const keySchema = z.looseObject({
  id: z.string(),
  tenantId: z.string(),
  name: z.string(),
  scopes: z.array(z.string()),
  state: z.string(),
  createdAt: z.string(),
  lastUsedAt: z.string().optional(),
  expiresAt: z.string().optional(),
  previousUntil: z.string().optional(),
  etag: z.string(),
});
export type Key = z.infer<typeof keySchema>;

export const clearKeySchema = keySchema.extend({ key: z.string() });

/** The largest page that the API gives. */
export const PAGE = 1000;

/** A tenant's address; `name` is its name or id. */
export const tenantPath = (name: string): string => `/admin/v1/tenants/${segment(name)}`;

/** Headers of a change that is of the state it was read in. */
export const ofState = ({ etag }: { etag: string }): Record<string, string> => ({
  "if-match": etag,
});

export const jsonBody = (value: unknown, headers: Record<string, string> = {}): RequestInit => ({
  body: JSON.stringify(value),
  headers: { "content-type": "application/json", ...headers },
});

/** All pages of a list. `pageOf` reads one page's items and what to give as `after` for the next. */
export async function allPages<T>(
  api: Api,
  path: string,
  query: URLSearchParams,
  schema: z.ZodType<{ items: T[]; next?: string | undefined }>,
): Promise<T[]> {
  const all: T[] = [];
  query.set("limit", String(PAGE));
  for (;;) {
    const { items, next } = await api.json("GET", `${path}?${query}`, schema);
    all.push(...items);
    if (next === undefined) return all;
    query.set("after", next);
  }
}

/** A moment as people read it: to the second, in UTC. */
export const shortMoment = (moment: string | undefined): string =>
  moment === undefined ? "-" : moment.replace("T", " ").replace(/\.\d+Z$/, "Z");
