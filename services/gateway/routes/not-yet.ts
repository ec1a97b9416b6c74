import type { OpenAPIHono } from "@hono/zod-openapi";
import { CloisterError } from "#errors/catalogue";
import type { GatewayEnv } from "../middleware/caller.ts";

/** Addresses of the contract that a later version serves: told apart from addresses that will never exist. */
const NOT_YET: [path: string, what: string][] = [
  ["/v1/functions/:name/aliases", "Aliases are"],
  ["/v1/functions/:name/secrets", "Secrets are"],
  ["/v1/functions/:name/schedules", "Schedules are"],
  ["/v1/dead-letters", "Dead letters are"],
  ["/2015-03-31/functions", "The Lambda API is"],
];

export function registerNotYet(app: OpenAPIHono<GatewayEnv>): void {
  for (const [path, what] of NOT_YET) {
    const refuse = (): never => {
      throw new CloisterError("not_implemented", `${what} not in this version`);
    };
    app.all(path, refuse);
    app.all(`${path}/*`, refuse);
  }
}
