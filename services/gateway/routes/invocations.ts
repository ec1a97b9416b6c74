import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { pathSchema } from "#contracts/function";
import type { ExitCounts, InvocationRecord, Phases } from "#contracts/invocation";
import { readInvocation } from "#db/invocations";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { problems } from "./problem-answers.ts";

const count = z.number().int();
const counts = (what: string) => z.record(z.string(), count).optional().describe(what);

const exitsSchema = z
  .object({
    syscall: count,
    fault: count,
    interrupted: count,
    page_unavailable: count,
  } satisfies Record<keyof ExitCounts, z.ZodType<number>>)
  .describe("how often a micro-VM's virtual CPUs came back, by reason");

const phase = z.number().optional();
const phasesSchema = z
  .object({
    queue_ms: phase,
    place_ms: phase,
    acquire_ms: phase,
    create_ms: phase,
    runtime_ms: phase,
    reset_ms: phase,
    restore_ms: phase,
    renew_ms: phase,
    assign_ms: phase,
    init_ms: phase,
    handler_ms: phase,
    reply_ms: phase,
  } satisfies Record<keyof Phases, z.ZodType>)
  .describe("as in Server-Timing");

const recordSchema = z
  .object({
    id: z.string(),
    functionId: z.string(),
    versionId: z.string(),
    acceptedAtMs: z.number().describe("wall clock"),
    finishedAtMs: z.number(),
    status: z.string(),
    httpStatus: count.optional(),
    errorCode: z.string().optional(),
    path: pathSchema.optional(),
    start: z.string().optional(),
    placementReasons: z.array(z.string()).readonly(),
    placementRules: z
      .array(z.string())
      .readonly()
      .optional()
      .describe("the rule that gave each of the reasons, see docs/placement.md"),
    placementTable: z.string().optional().describe("version of the table the rules are of"),
    phases: phasesSchema,
    durationMs: z.number(),
    billedMs: z.number(),
    memoryMb: count,
    cpuMs: z.number().optional(),
    memoryPeakBytes: count.optional(),
    pageFaults: count.optional().describe("pages given to the sandbox when they were touched"),
    exits: exitsSchema.optional(),
    syscalls: counts("system calls of a micro-VM, by name"),
    guestMs: z.number().optional().describe("time of a micro-VM's virtual CPUs in guest code"),
    monitorMs: z.number().optional().describe("time of its monitor between that, without sleep"),
    requestBytes: count,
    responseBytes: count,
    sandboxId: z.string().optional(),
    nodeId: z.string(),
    lost: z
      .literal(true)
      .optional()
      .describe("its worker could not tell of it: what it used is not known and not charged"),
  } satisfies Record<Exclude<keyof InvocationRecord, "tenantId">, z.ZodType>)
  .openapi("Invocation");

const idParameter = z.object({
  id: z
    .string()
    .regex(/^inv_[0-9a-v]{26}$/)
    .openapi({ description: "as in Cloister-Invocation-Id" }),
});

/** What is known of one invocation that has ended. */
export function registerInvocations(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/invocations/{id}",
      summary: "Read an invocation's record",
      description: "Records are written in batches: one is there within a second of the end.",
      tags: ["invocations"],
      security: [{ key: [] }],
      middleware: [requireScope(gateway.authenticator, "read")],
      request: { params: idParameter },
      responses: {
        200: {
          description: "the record",
          content: { "application/json": { schema: recordSchema } },
        },
        ...problems("bad_request", "not_found"),
      },
    }),
    async (c) => {
      const { id } = c.req.valid("param");
      const found = await readInvocation(gateway.db, c.get("caller").tenantId, id);
      if (!found)
        throw new CloisterError(
          "not_found",
          `There is no record of ${id}; that of one that has just ended may still be on its way`,
        );
      const { tenantId: _, ...record } = found;
      return c.json(record, 200);
    },
  );
}
