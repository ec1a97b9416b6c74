import type { MiddlewareHandler } from "hono";
import type { Scope } from "#db/keys";
import { type Authenticator, bearerToken, type Caller } from "../auth/authenticator.ts";

/** What middleware leaves for the routes. */
export interface GatewayVariables {
  caller: Caller;
}
export interface GatewayEnv {
  Variables: GatewayVariables;
}

/** Lets in who has a key with the scope. */
export const requireScope =
  (authenticator: Authenticator, scope: Scope): MiddlewareHandler<GatewayEnv> =>
  async (c, next) => {
    const token = bearerToken(c.req.header("authorization"));
    c.set("caller", await authenticator.authenticate(token, scope));
    await next();
  };
