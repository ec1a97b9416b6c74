import { getConnInfo } from "@hono/node-server/conninfo";
import type { Context } from "hono";
import { newId } from "#contracts/ids";
import type { Origin } from "#db/audit";
import type { Caller } from "../auth/authenticator.ts";
import type { GatewayEnv } from "../middleware/caller.ts";

/** Who asks, and by which request, for the audit log; the answer names the request too. */
export function originOf<E extends GatewayEnv>(c: Context<E>): Origin {
  const { keyId, tenantId }: Caller = c.get("caller");
  const id = newId("req");
  c.header("cloister-request-id", id);
  const { address } = getConnInfo(c).remote;
  const userAgent = c.req.header("user-agent")?.slice(0, 200);
  return {
    keyId,
    tenantId,
    request: {
      id,
      method: c.req.method,
      path: c.req.path.slice(0, 500),
      ...(address === undefined ? {} : { address }),
      ...(userAgent === undefined ? {} : { userAgent }),
    },
  };
}
