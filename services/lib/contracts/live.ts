import { z } from "zod";
import { pathSchema, startKindSchema } from "./function.ts";

const whole = z.number().int().min(0);

/** How a node's sandboxes stand. */
export const poolSchema = z.object({
  busy: whole,
  warm: whole,
  /** Clones that wait for a call. */
  pooled: whole,
  /** Booted runners that wait for their function. */
  prepared: whole,
  starting: whole,
  /** Calls that wait for a sandbox. */
  waiting: whole,
});
export type PoolFigures = z.infer<typeof poolSchema>;

const exitsSchema = z.object({
  syscall: whole,
  fault: whole,
  interrupted: whole,
  page_unavailable: whole,
});

/** One call that has ended, as the live page shows it. Times in ms. */
export const glanceSchema = z.object({
  id: z.string().max(64),
  tenantId: z.string().max(64),
  /** Absent when the version could not be read. */
  function: z.string().max(63).optional(),
  version: z.number().int().optional(),
  /** When it ended, wall clock. */
  atMs: z.number(),
  status: z.string().max(64),
  httpStatus: z.number().int().optional(),
  errorCode: z.string().max(64).optional(),
  path: pathSchema.optional(),
  start: startKindSchema.optional(),
  queueMs: z.number().optional(),
  /** Until a sandbox could serve. */
  bootMs: z.number().optional(),
  handlerMs: z.number().optional(),
  durationMs: z.number(),
});
export type Glance = z.infer<typeof glanceSchema>;

/** Calls of one tenant that ended alike. */
export const liveSumSchema = z.object({
  tenantId: z.string().max(64),
  path: pathSchema.optional(),
  start: startKindSchema.optional(),
  calls: whole,
  failures: whole,
  /** Of the calls' micro-VMs. */
  exits: exitsSchema.optional(),
});
export type LiveSum = z.infer<typeof liveSumSchema>;

/** The most one batch holds: a page follows that much, and Redis carries little. */
export const MOST_GLANCES = 50;
export const MOST_GLANCES_OF_ONE = 20;
export const MOST_SUMS = 500;

/** What happened at one node since its last batch: all calls in sums, some of them one by one. */
export const liveBatchSchema = z.object({
  nodeId: z.string().min(1).max(64),
  atMs: z.number(),
  /** The time it is of. */
  spanMs: z.number().min(0),
  pool: poolSchema,
  sums: z.array(liveSumSchema).max(MOST_SUMS),
  calls: z.array(glanceSchema).max(MOST_GLANCES),
  /** Calls that are in no sum, because there were too many kinds of them. */
  uncounted: whole,
});
export type LiveBatch = z.infer<typeof liveBatchSchema>;
