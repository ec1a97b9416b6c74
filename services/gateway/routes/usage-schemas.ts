import { z } from "@hono/zod-openapi";
import { MAX_DAYS } from "../usage/range.ts";

/** Hours of one page: a month of 31 days. */
export const MAX_HOURS = 744;

const moment = (description: string) =>
  z.iso
    .datetime({ offset: true, error: "must be RFC 3339, e.g. 2026-11-01T00:00:00Z" })
    .optional()
    .openapi({ description, example: "2026-11-01T00:00:00Z" });

export const rangeQuery = z.strictObject({
  from: moment("the hour it lies in is the first; default: the beginning of the month"),
  to: moment("the hour it lies in is left out; default: the end of this hour"),
});

export const usageQuery = rangeQuery.extend({
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(MAX_HOURS)
    .default(MAX_HOURS)
    .openapi({ description: "hours of a page" }),
  after: moment("hours after this one: `next` of the page before"),
  by: z
    .literal("function")
    .optional()
    .openapi({ description: "tell functions apart too, those that used most first" }),
  format: z.enum(["json", "csv"]).optional().openapi({ description: "instead of Accept" }),
});

const count = z.number().int();
const used = {
  invocations: count,
  gbSeconds: z.number().describe("memory of the function (1 GB is 1024 MiB) times billed time"),
  cpuSeconds: z.number().describe("processor time of its sandboxes"),
  egressBytes: count.describe("bytes of answers' bodies"),
};
const parts = {
  byPath: z.record(z.string(), count).describe("invocations; none: never placed"),
  byStatus: z.record(z.string(), count).describe("invocations"),
};

export const usageSchema = z
  .object({
    tenant: z.string().describe("its id"),
    from: z.string().describe("aligned down to the hour"),
    to: z.string().describe("aligned down to the hour, which is left out"),
    totals: z
      .object({
        ...used,
        storageBytes: count.describe("bundles of live versions at the end of the range"),
        storageByteHours: count.describe("the most of each hour, added up"),
        ...parts,
      })
      .describe("of the whole range, whatever page this is"),
    hours: z.array(
      z.object({
        hour: z.string(),
        ...used,
        storageBytes: count.describe("the most within the hour"),
        ...parts,
      }),
    ),
    functions: z
      .array(z.object({ functionId: z.string(), name: z.string().optional(), ...used }))
      .optional(),
    next: z.string().optional().describe("there are more hours: send it as `after`"),
  })
  .openapi("Usage", { description: `At most ${MAX_DAYS} days.` });

const compared = z.object({ invocations: count, mibMs: count, cpuUs: count, egressBytes: count });

export const reconciliationSchema = z
  .object({
    from: z.string().describe("later than asked for where older records were dropped"),
    to: z.string(),
    records: count.describe("records that were compared"),
    differences: z
      .array(
        z.object({
          tenant: z.string(),
          hour: z.string(),
          functionId: z.string(),
          path: z.string(),
          status: z.string(),
          records: compared,
          usage: compared,
        }),
      )
      .describe("none, unless somebody changed the tables by hand; at most 100"),
  })
  .openapi("UsageReconciliation");
