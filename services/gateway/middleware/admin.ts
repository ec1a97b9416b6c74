import type { MiddlewareHandler } from "hono";
import { CloisterError } from "#errors/catalogue";
import { type Authenticator, bearerToken } from "../auth/authenticator.ts";
import type { GatewayEnv } from "./caller.ts";

/** Lets in who has an admin key of the operator's tenant, which governs all tenants and the nodes. */
export const requireOperator =
  (authenticator: Authenticator): MiddlewareHandler<GatewayEnv> =>
  async (c, next) => {
    const token = bearerToken(c.req.header("authorization"));
    const caller = await authenticator.authenticate(token, "admin");
    if (!caller.operator)
      throw new CloisterError(
        "forbidden",
        "This needs an admin key of the operator's tenant; an admin key of another tenant governs that tenant's keys only",
      );
    c.set("caller", caller);
    await next();
  };
