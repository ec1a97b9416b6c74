import { z } from "zod";
import { LIMITS, pathSchema, startKindSchema } from "./function.ts";

/** Starts that a comparison asks for by name; `warm` and `reset` are what a sandbox that has served gives by itself. */
export const forcedStartSchema = z.enum(["cold", "prepared", "restored"]);
export type ForcedStart = z.infer<typeof forcedStartSchema>;

/** What a worker tells of a run of a comparison, beside the answer. */
export const measuredRunSchema = z.object({
  nodeId: z.string(),
  /** Time that was spent on making ready what a service has ready before a call comes; no part of the run, ms. */
  asideMs: z.number().min(0),
  /** Of a sandbox made for the run since it began, of others of the call alone. */
  cpuMs: z.number().min(0).optional(),
  /** Memory charged to the sandbox that no file stands behind, after the answer. */
  privateKib: z.number().min(0).optional(),
  pageFaults: z.number().min(0).optional(),
  exits: z.record(z.string(), z.number().min(0)).optional(),
  guestMs: z.number().min(0).optional(),
  monitorMs: z.number().min(0).optional(),
});
export type MeasuredRun = z.infer<typeof measuredRunSchema>;

export const MOST_RUNS = 1000;

/** Body of POST /v1/compare. */
export const compareRequestSchema = z
  .strictObject({
    function: z.string().min(1).max(256).describe("name, or name@version"),
    n: z
      .number()
      .int()
      .min(1)
      .max(MOST_RUNS)
      .default(50)
      .describe("measured runs of each start, after those that are not counted"),
    paths: z
      .array(pathSchema)
      .min(1)
      .max(2)
      .refine((paths) => new Set(paths).size === paths.length, "a path stands there twice")
      .default(["container", "microvm"]),
    data: z.unknown().optional().describe("call with this event; without it, over HTTP"),
    request: z
      .strictObject({
        method: z.enum(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]).default("GET"),
        path: z.string().startsWith("/").max(8192).default("/"),
        body: z.string().max(LIMITS.inlineBodyBytes).optional(),
      })
      .optional()
      .describe("call over HTTP with this; GET / when absent"),
  })
  .refine(
    ({ data, request }) => data === undefined || request === undefined,
    "give data for an event or request for a call over HTTP, not both",
  );
export type CompareRequest = z.infer<typeof compareRequestSchema>;

const ms = z.number().nullable();
const intervalSchema = z
  .object({ low: z.number(), high: z.number() })
  .nullable()
  .describe("95 %, by bootstrap; null for too few values");

export const startReportSchema = z.object({
  start: startKindSchema,
  /** Attempts that count, failures among them. */
  n: z.number().int(),
  failures: z.number().int(),
  first_failure: z.string().optional(),
  min_ms: ms,
  p50_ms: ms,
  p50_interval: intervalSchema,
  p90_ms: ms,
  p99_ms: ms,
  max_ms: ms,
  phases: z.record(z.string(), z.number()).describe("medians, ms"),
  cpu_ms: ms.describe("median; of a fresh sandbox all since it began, of others the call's"),
  private_kib: ms,
  page_faults: ms,
  exits: z.record(z.string(), z.number()).optional(),
  times_ms: z.array(z.number()).describe("all of them, as they came"),
});
export type StartReport = z.infer<typeof startReportSchema>;

export const pathReportSchema = z.object({
  path: pathSchema,
  available: z.boolean(),
  reason: z.string().optional().describe("why it cannot be had"),
  starts: z.array(startReportSchema),
  cpu_ms: ms.describe("of a call in a sandbox that has served, median"),
  private_kib: ms.describe("after such a call"),
  exits: z.record(z.string(), z.number()).optional(),
});
export type PathReport = z.infer<typeof pathReportSchema>;

export const comparisonSchema = z
  .object({
    function: z.string(),
    version: z.number().int(),
    runtime: z.string(),
    call: z.string().describe("what was called"),
    n: z.number().int(),
    warm_up_rounds: z.number().int().describe("before those that count"),
    calls_before_warm: z.number().int().describe("before each measured warm call"),
    started_at: z.string(),
    duration_ms: z.number(),
    invocations: z
      .number()
      .int()
      .describe("all calls, also those that do not count, and those that were refused"),
    nodes: z.array(z.string()),
    stopped: z.string().optional().describe("why it ended before all was measured"),
    paths: z.array(pathReportSchema),
    ratios: z.array(
      z.object({
        of: z.string(),
        to: z.string(),
        ratio: z.number().nullable().describe("of medians"),
        interval: intervalSchema,
      }),
    ),
  })
  .describe("a comparison of the two paths");
export type Comparison = z.infer<typeof comparisonSchema>;

/** How far it is: the data of an event `progress`. */
export const compareProgressSchema = z.object({
  done: z.number().int(),
  of: z.number().int(),
  path: pathSchema,
  start: startKindSchema,
  ms: z.number().optional(),
  failure: z.string().optional(),
});
export type CompareProgress = z.infer<typeof compareProgressSchema>;
