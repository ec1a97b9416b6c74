import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import {
  deleteFunction,
  type FunctionSummary,
  listFunctions,
  listVersions,
  readFunction,
} from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";
import { parseFunctionAddress } from "../invoke/function-resolver.ts";
import { type GatewayEnv, requireScope } from "../middleware/caller.ts";
import { publish } from "../publish/publish.ts";
import { snapshotOf } from "../snapshots/snapshot-of.ts";
import {
  functionListSchema,
  functionSchema,
  listQuery,
  multipartSchema,
  nameParameter,
  publishRequestSchema,
  versionListSchema,
  versionsQuery,
} from "./function-schemas.ts";
import { problems } from "./problem-answers.ts";

const json = <T>(schema: T, description: string) => ({
  description,
  content: { "application/json": { schema } },
});
const security = [{ key: [] }];
const tags = ["functions"];

/** Publish, list, read, delete. */
export function registerFunctions(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db, publicUrl } = gateway;
  const shown = (one: FunctionSummary) => ({
    name: one.name,
    version: one.version,
    url: `${publicUrl}/f/${one.name}`,
    versionId: one.versionId,
    digest: one.digest,
    sizeBytes: one.sizeBytes,
    config: one.config,
    createdAt: one.createdAt.toISOString(),
    updatedAt: one.updatedAt.toISOString(),
  });

  const publishRoute = createRoute({
    method: "post",
    path: "/v1/functions",
    summary: "Publish a version of a function",
    tags,
    security,
    request: {
      body: {
        required: true,
        content: {
          "application/json": { schema: publishRequestSchema },
          "multipart/form-data": { schema: multipartSchema },
        },
      },
    },
    responses: {
      201: json(functionSchema, "published"),
      ...problems(
        ...(["bad_request", "bad_bundle", "body_too_large", "unsupported_media_type"] as const),
        ...(["request_timeout", "quota_exceeded", "capacity_exhausted"] as const),
      ),
    },
  });
  // The body is read as it comes, with bounds, by `publish`; the document is made of the same schemas.
  app.openAPIRegistry.registerPath(publishRoute);
  app.post("/v1/functions", requireScope(authenticator, "deploy"), async (c) => {
    const made = await publish(db, c.get("caller").tenantId, c.req.raw);
    await gateway.changed({ kind: "function", id: made.id, versionId: made.versionId });
    const answer = shown(made);
    return c.json(answer, 201, { location: `/v1/functions/${made.name}` });
  });

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/functions",
      summary: "List functions in order of name",
      tags,
      security,
      middleware: [requireScope(authenticator, "read")],
      request: { query: listQuery },
      responses: { 200: json(functionListSchema, "one page"), ...problems("bad_request") },
    }),
    async (c) => {
      const { limit, after } = c.req.valid("query");
      const found = await listFunctions(db, c.get("caller").tenantId, limit + 1, after);
      const page = found.slice(0, limit);
      const next = found.length > limit ? page.at(-1)?.name : undefined;
      return c.json({ functions: page.map(shown), ...(next === undefined ? {} : { next }) }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/functions/{name}",
      summary: "Read a function",
      tags,
      security,
      middleware: [requireScope(authenticator, "read")],
      request: { params: nameParameter },
      responses: { 200: json(functionSchema, "the function"), ...problems("function_not_found") },
    }),
    async (c) => {
      const { name } = c.req.valid("param");
      const { tenantId } = c.get("caller");
      const one = await existing(gateway, tenantId, name);
      const snapshot = await snapshotOf(gateway, tenantId, one);
      return c.json({ ...shown(one), snapshot }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "delete",
      path: "/v1/functions/{name}",
      summary: "Delete a function and its versions",
      tags,
      security,
      middleware: [requireScope(authenticator, "deploy")],
      request: { params: nameParameter },
      responses: { 204: { description: "deleted" }, ...problems("function_not_found") },
    }),
    async (c) => {
      const name = plainName(c.req.valid("param").name);
      const id = await deleteFunction(db, c.get("caller").tenantId, name);
      if (id === undefined) throw new CloisterError("function_not_found");
      await gateway.changed({ kind: "function", id, deleted: true });
      return c.body(null, 204);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/functions/{name}/versions",
      summary: "List a function's versions, newest first",
      tags,
      security,
      middleware: [requireScope(authenticator, "read")],
      request: { params: nameParameter, query: versionsQuery },
      responses: { 200: json(versionListSchema, "versions"), ...problems("function_not_found") },
    }),
    async (c) => {
      const { name } = c.req.valid("param");
      const { limit } = c.req.valid("query");
      const { id } = await existing(gateway, c.get("caller").tenantId, name);
      const versions = (await listVersions(db, id, limit)).map(({ createdAt, ...version }) => ({
        ...version,
        url: `${publicUrl}/f/${name}@${version.version}`,
        createdAt: createdAt.toISOString(),
      }));
      return c.json({ versions }, 200);
    },
  );
}

/** The tenant's function; rejects with `function_not_found` for any other name. */
export async function existing(
  { db }: Pick<GatewayContext, "db">,
  tenantId: string,
  name: string,
): Promise<FunctionSummary> {
  const found = await readFunction(db, tenantId, plainName(name));
  if (found) return found;
  throw new CloisterError("function_not_found", `There is no function ${name}`);
}

/** A name without a version. What can be no name never reaches the database, which cannot hold every string. */
function plainName(text: string): string {
  const { name, version } = parseFunctionAddress(text);
  if (version === undefined) return name;
  throw new CloisterError("bad_request", "This address takes a function's name without a version");
}
