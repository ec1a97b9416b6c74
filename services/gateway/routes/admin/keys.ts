import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { isKeyId } from "#contracts/tenant";
import { changeKey, issueKey, type KeySummary, listKeys, readKeySummary } from "#db/keys";
import { CloisterError } from "#errors/catalogue";
import { etagOf, expectedBy, requiredBy } from "../../admin/if-match.ts";
import { endKey, keyState, renewKey } from "../../admin/key-changes.ts";
import { originOf } from "../../admin/origin.ts";
import { tenantOf } from "../../admin/tenant-of.ts";
import type { Caller } from "../../auth/authenticator.ts";
import type { GatewayContext } from "../../gateway-context.ts";
import { type GatewayEnv, requireScope } from "../../middleware/caller.ts";
import { jsonBody } from "../../middleware/json-body.ts";
import { problems } from "../problem-answers.ts";
import {
  clearKeySchema,
  ifMatch,
  keyChangeSchema,
  keyListQuery,
  keyListSchema,
  keyParameter,
  keySchema,
  newKeySchema,
  rotationSchema,
  tenantParameter,
} from "./admin-schemas.ts";
import { body, json, security } from "./answers.ts";

const tags = ["keys"];
const path = "/admin/v1/tenants/{tenant}/keys";
const NOT_CACHED = { "cache-control": "no-store" };

const moments = ["lastUsedAt", "expiresAt", "rotatedAt", "previousUntil", "revokedAt"] as const;

const shown = (key: KeySummary) => ({
  id: key.id,
  tenantId: key.tenantId,
  name: key.name,
  scopes: key.scopes,
  state: keyState(key),
  createdAt: key.createdAt.toISOString(),
  ...(Object.fromEntries(
    moments.flatMap((name) => (key[name] ? [[name, key[name].toISOString()]] : [])),
  ) as Partial<Record<(typeof moments)[number], string>>),
  etag: etagOf(key),
});

/** Create, list, read, change, rotate, revoke; by the operator, or by an admin key of the same tenant. */
export function registerKeys(app: OpenAPIHono<GatewayEnv>, gateway: GatewayContext): void {
  const { authenticator, db } = gateway;
  const admin = requireScope(authenticator, "admin");
  const addressed = async (caller: Caller, { tenant, key }: { tenant: string; key: string }) => ({
    tenantId: (await tenantOf(db, caller, tenant)).id,
    id: keyId(key),
  });

  app.openapi(
    createRoute({
      method: "post",
      path,
      summary: "Create a key",
      tags,
      security,
      middleware: [admin, jsonBody()] as const,
      request: { params: tenantParameter, ...body(newKeySchema) },
      responses: {
        201: json(clearKeySchema, "created; the key itself is shown this once"),
        ...problems("bad_request", "tenant_not_found", "conflict"),
        ...problems("unsupported_media_type", "body_too_large"),
      },
    }),
    async (c) => {
      const origin = originOf(c);
      const { id } = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      const { name, scopes, expiresAt } = c.req.valid("json");
      const wanted = { name, scopes, ...(expiresAt === undefined ? {} : { expiresAt }) };
      const { key, clear } = await issueKey(db, id, wanted, origin);
      const location = `/admin/v1/tenants/${id}/keys/${key.id}`;
      return c.json({ ...shown(key), key: clear }, 201, {
        location,
        etag: etagOf(key),
        ...NOT_CACHED,
      });
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path,
      summary: "List a tenant's keys in order of their making",
      description: "Also those that are of no use any more. The keys themselves are not told.",
      tags,
      security,
      middleware: [admin] as const,
      request: { params: tenantParameter, query: keyListQuery },
      responses: {
        200: json(keyListSchema, "one page"),
        ...problems("bad_request", "tenant_not_found"),
      },
    }),
    async (c) => {
      const { id } = await tenantOf(db, c.get("caller"), c.req.valid("param").tenant);
      const { limit, after } = c.req.valid("query");
      if (after !== undefined && !isKeyId(after))
        throw new CloisterError("bad_request", "query after: must be a key's id");
      const found = await listKeys(db, id, limit + 1, after);
      const page = found.slice(0, limit);
      const next = found.length > limit ? page.at(-1)?.id : undefined;
      return c.json({ keys: page.map(shown), ...(next === undefined ? {} : { next }) }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: `${path}/{key}`,
      summary: "Read a key's description",
      tags,
      security,
      middleware: [admin] as const,
      request: { params: keyParameter },
      responses: {
        200: json(keySchema, "the key, without its secret"),
        ...problems("tenant_not_found", "key_not_found"),
      },
    }),
    async (c) => {
      const { tenantId, id } = await addressed(c.get("caller"), c.req.valid("param"));
      const key = await readKeySummary(db, tenantId, id);
      if (!key) throw unknownKey(id);
      return c.json(shown(key), 200, { etag: etagOf(key) });
    },
  );

  app.openapi(
    createRoute({
      method: "patch",
      path: `${path}/{key}`,
      summary: "Change a key's name, scopes or expiry",
      tags,
      security,
      middleware: [admin, jsonBody()] as const,
      request: { params: keyParameter, headers: ifMatch, ...body(keyChangeSchema) },
      responses: {
        200: json(keySchema, "as it is now"),
        ...problems("bad_request", "tenant_not_found", "key_not_found", "conflict"),
        ...problems("precondition_required", "precondition_failed"),
        ...problems("unsupported_media_type", "body_too_large"),
      },
    }),
    async (c) => {
      const origin = originOf(c);
      const expected = requiredBy(c.req.valid("header")["if-match"]);
      const { tenantId, id } = await addressed(c.get("caller"), c.req.valid("param"));
      const change = present(c.req.valid("json"));
      const key = await changeKey(db, tenantId, id, change, { origin, expected });
      await gateway.changed({ kind: "key", id });
      return c.json(shown(key), 200, { etag: etagOf(key) });
    },
  );

  app.openapi(
    createRoute({
      method: "post",
      path: `${path}/{key}/rotate`,
      summary: "Give a key a new secret",
      description:
        "Its id, scopes and expiry stay. The old secret is taken for graceMs more; a secret before that one is not taken any more.",
      tags,
      security,
      middleware: [admin, jsonBody()] as const,
      request: { params: keyParameter, headers: ifMatch, ...body(rotationSchema) },
      responses: {
        200: json(clearKeySchema, "the new key, shown this once"),
        ...problems("bad_request", "tenant_not_found", "key_not_found", "conflict"),
        ...problems("precondition_required", "precondition_failed"),
        ...problems("unsupported_media_type", "body_too_large"),
      },
    }),
    async (c) => {
      const origin = originOf(c);
      const expected = requiredBy(c.req.valid("header")["if-match"]);
      const one = await addressed(c.get("caller"), c.req.valid("param"));
      const { graceMs } = c.req.valid("json");
      const rotated = await renewKey(gateway, one, graceMs, { origin, expected });
      const { key, clear } = rotated;
      return c.json({ ...shown(key), key: clear }, 200, { etag: etagOf(key), ...NOT_CACHED });
    },
  );

  app.openapi(
    createRoute({
      method: "delete",
      path: `${path}/{key}`,
      summary: "Revoke a key for good",
      description:
        "Every gateway refuses it within a second. It stays in the list. If-Match is honoured, and not needed.",
      tags,
      security,
      middleware: [admin] as const,
      request: { params: keyParameter, headers: ifMatch },
      responses: {
        204: { description: "revoked, or it was already" },
        ...problems("bad_request", "tenant_not_found", "key_not_found", "conflict"),
        ...problems("precondition_failed"),
      },
    }),
    async (c) => {
      const origin = originOf(c);
      const expected = expectedBy(c.req.valid("header")["if-match"]);
      const one = await addressed(c.get("caller"), c.req.valid("param"));
      await endKey(gateway, one, { origin, expected });
      return c.body(null, 204);
    },
  );
}

const unknownKey = (id: string): CloisterError =>
  new CloisterError("key_not_found", `The tenant has no key ${id}`);

/** What cannot be an id never reaches the database, which cannot hold every string. */
function keyId(text: string): string {
  if (isKeyId(text)) return text;
  throw unknownKey(text);
}

/** The object without the fields that are undefined. */
const present = <T extends object>(value: T) =>
  Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
