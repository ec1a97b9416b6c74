import { z } from "@hono/zod-openapi";
import { pathSchema, startKindSchema } from "#contracts/function";
import { bundleFindingsSchema } from "#contracts/needs";

const pathStateSchema = z.object({
  start: startKindSchema.describe("how a call would start now"),
  ready: z.boolean().describe("whether a sandbox stands open"),
  next: startKindSchema.describe("how one would start that finds no sandbox open"),
  acquireMs: z.number().describe("what that is expected to take"),
  memoryMb: z.number().describe("most memory it is expected to have"),
  observed: z
    .number()
    .describe("starts of this version that this rests on, old ones counting less"),
});

const decisionShape = {
  path: pathSchema.nullable().describe("null when it would be refused"),
  start: startKindSchema.optional().describe("how the call would start now"),
  code: z.string().optional().describe("why it would be refused, as a code of the catalogue"),
  detail: z.string().optional().describe("the same in a sentence"),
  remedy: z.string().optional(),
  reasons: z.array(z.string()),
  rules: z.array(z.string()).describe("the rule that gave each of the reasons"),
  table: z.string().describe("version of the table of rules"),
};

export const placementSchema = z
  .object({
    ...decisionShape,
    findings: bundleFindingsSchema
      .extend({ looked: z.boolean().describe("false: published before bundles were looked at") })
      .describe("what the function needs, and what it may need"),
    nodes: z.array(
      z.object({
        id: z.string(),
        answered: z.boolean().describe("false: decided by the node's last heartbeat"),
        ...decisionShape,
        paths: z.object({
          container: pathStateSchema.optional(),
          microvm: pathStateSchema.optional(),
        }),
      }),
    ),
  })
  .openapi("Placement");

export const placementQuery = z.object({
  isolation: pathSchema.optional().describe("as the header Cloister-Isolation of a call"),
});
