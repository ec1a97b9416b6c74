import { z } from "zod";
import type { FunctionConfig } from "./function.ts";
import { type Need, needSchema } from "./need-kinds.ts";

/** Where something was found that a function needs, or may need. */
export const findingSchema = z.object({
  need: needSchema,
  /** What was seen, e.g. `spawn of node:child_process`. */
  what: z.string().max(200),
  /** Path inside the bundle; absent when the configuration tells of it. */
  file: z.string().max(4096).optional(),
  /** From 1. */
  line: z.number().int().min(1).optional(),
});
export type Finding = z.infer<typeof findingSchema>;

/**
 * What a look at a bundle found. `needs` are used by the function's own code or are part of how it is run, and bear on placement; `hints` may
 * never come to be used (something in a dependency, an import without a use) and are only told.
 */
export const bundleFindingsSchema = z.object({
  needs: z.array(findingSchema).max(32),
  hints: z.array(findingSchema).max(32),
  /** Whether everything that can tell something was looked at; large bundles are only looked at in part. */
  complete: z.boolean(),
});
export type BundleFindings = z.infer<typeof bundleFindingsSchema>;

/** What a configuration alone tells. */
export function findingsOfConfig({
  runtime,
  entry,
  egress,
}: Pick<FunctionConfig, "runtime" | "entry" | "egress">): Finding[] {
  const found: Finding[] = [];
  if (runtime === "binary")
    found.push({
      need: "native-program",
      what: "the runtime is binary",
      ...(entry === undefined ? {} : { file: entry }),
    });
  if (egress !== "none" && egress.length > 0)
    found.push({
      need: "egress",
      what: `egress names ${egress.slice(0, 3).join(", ")}`.slice(0, 200),
    });
  return found;
}

/** The needs that placement goes by, each once. What was never looked at has none. */
export const needsOf = (findings: BundleFindings | null | undefined): Need[] => [
  ...new Set(findings?.needs.map(({ need }) => need)),
];
