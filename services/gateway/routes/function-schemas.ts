import { z } from "@hono/zod-openapi";
import { functionConfigSchema, functionNameSchema } from "#contracts/function";
import type { SnapshotState } from "#contracts/snapshot";
import { ERRORS, type ErrorCode } from "#errors/catalogue";

const fileContentSchema = z.union([
  z.string(),
  z.strictObject({ base64: z.string().describe("the bytes in base64") }),
]);

/** The JSON form of a deploy: cloister.json's fields and the files themselves. */
export const publishRequestSchema = functionConfigSchema
  .extend({
    files: z
      .record(z.string().min(1).max(1024), fileContentSchema)
      .refine((files) => Object.keys(files).length > 0, "at least one file is needed")
      .describe("path in the bundle to text, or to bytes in base64"),
  })
  .strict()
  .openapi("PublishRequest");

export const multipartSchema = z
  .object({
    // A copy: a schema that was made before zod was extended cannot be named.
    config: functionConfigSchema.extend({}).openapi("FunctionConfig"),
    bundle: z
      .any()
      .openapi({ type: "string", format: "binary", description: "tar.gz, at most 50 MiB" }),
  })
  .openapi("PublishForm");

const snapshotSchema = z
  .object({
    state: z.enum(["making", "ready", "failed", "none"]),
    reason: z.string().optional().describe("why there is none"),
    bytes: z.number().int().optional(),
    ms: z.number().optional().describe("from the deploy, or from the call that needed one"),
  })
  .openapi("Snapshot") satisfies z.ZodType<SnapshotState>;

export const functionSchema = z
  .object({
    name: functionNameSchema,
    version: z.number().int(),
    url: z.string().describe("where it is called"),
    versionId: z.string(),
    digest: z.string().describe("SHA-256 of the bundle"),
    sizeBytes: z.number().int(),
    config: functionConfigSchema,
    createdAt: z.string(),
    updatedAt: z.string(),
    snapshot: snapshotSchema
      .optional()
      .describe("what this version starts from; told when one function is read"),
  })
  .openapi("Function");

export const functionListSchema = z
  .object({
    functions: z.array(functionSchema),
    next: z.string().optional().describe("give it as `after` for the next page"),
  })
  .openapi("FunctionList");

export const versionListSchema = z
  .object({
    versions: z.array(
      z.object({
        versionId: z.string(),
        version: z.number().int(),
        url: z.string(),
        digest: z.string(),
        sizeBytes: z.number().int(),
        config: functionConfigSchema,
        createdAt: z.string(),
      }),
    ),
  })
  .openapi("VersionList");

export const logPageSchema = z
  .object({
    entries: z.array(
      z.object({
        tenantId: z.string(),
        functionId: z.string(),
        invocationId: z.string().optional(),
        version: z.number().int(),
        atMs: z.number(),
        stream: z.enum(["stdout", "stderr", "system", "trace"]),
        text: z.string(),
      }),
    ),
  })
  .openapi("LogPage");

export const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string(),
    code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]),
    remedy: z.string(),
    instance: z.string().optional().describe("the invocation's id"),
    errorType: z.string().optional().describe("name of the error a function threw"),
    quota: z.string().optional().describe("the quota that is used up"),
    of: z.enum(["tenant", "function"]).optional().describe("whose quota it is"),
    limit: z.union([z.number(), z.string()]).optional().describe("what the quota allows"),
  })
  .openapi("Problem");

export const nameParameter = z.object({
  name: z.string().max(256).openapi({ description: "the function's name", example: "hello" }),
});

const positive = (max: number, preset: number) =>
  z.coerce.number().int().min(1).max(max).default(preset);

export const listQuery = z.object({
  limit: positive(1000, 1000),
  after: functionNameSchema.optional().openapi({ description: "names after this one" }),
});

export const versionsQuery = z.object({ limit: positive(1000, 100) });

export const logsQuery = z.object({
  limit: positive(1000, 100),
  since: z.coerce
    .number()
    .min(0)
    .max(8.64e15)
    .optional()
    .openapi({ description: "wall clock, ms" }),
  invocation: z
    .string()
    .regex(/^inv_[0-9a-v]{26}$/)
    .optional(),
  follow: z
    .enum(["true", "false"])
    .optional()
    .openapi({ description: "true: new lines as server-sent events" }),
});
