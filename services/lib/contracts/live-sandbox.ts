import { z } from "zod";
import { pathSchema, runtimeSchema, startKindSchema } from "./function.ts";

/**
 * A sandbox as its node tells of it. `prepared`: it waits for its function, and is nobody's. `pooled`: it was brought back with its function, and no call has had it. `ending`: it takes nothing new, and goes when
 * what it serves is done.
 */
export const liveSandboxSchema = z.object({
  id: z.string().max(200),
  path: pathSchema,
  runtime: runtimeSchema,
  state: z.enum(["prepared", "pooled", "idle", "busy", "resetting", "ending"]),
  /** How it began; absent while it is prepared. */
  start: startKindSchema.optional(),
  tenantId: z.string().optional(),
  functionId: z.string().optional(),
  function: z.string().optional(),
  version: z.number().int().optional(),
  /** Since it could serve; absent while it is prepared. */
  ageMs: z.number().min(0).optional(),
  /** What it may use. */
  memoryMb: z.number().int(),
  /** The most it has used. */
  memoryPeakBytes: z.number().optional(),
  /** It has begun this many, `active` of which go on. */
  invocations: z.number().int(),
  active: z.number().int(),
});
export type LiveSandbox = z.infer<typeof liveSandboxSchema>;

/** Of which sandboxes and invocations a node is to tell; absent: all. */
export interface SandboxFilter {
  tenantId?: string;
  functionId?: string;
}

/** What one node tells. */
export const nodeSandboxesSchema = z.object({
  nodeId: z.string().min(1).max(64),
  /** Invocations that it has taken from the queue and that have not ended. */
  running: z.number().int(),
  /** Sandboxes there are, of which `sandboxes` may hold fewer. */
  total: z.number().int(),
  sandboxes: z.array(liveSandboxSchema),
});
export type NodeSandboxes = z.infer<typeof nodeSandboxesSchema>;
