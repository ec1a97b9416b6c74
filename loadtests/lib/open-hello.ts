import { hello } from "./functions.ts";
import type { Plan, Settings, Step } from "./plan.ts";

/** The smallest function, called by one open stream. */
export const openHello = (
  name: string,
  steps: readonly Step[],
  { clients, isolation }: { clients: number; isolation: Settings["isolation"] | undefined },
): Pick<Plan, "functions" | "tenants" | "streams"> => ({
  functions: [hello()],
  tenants: [],
  streams: [
    {
      name,
      startMs: 0,
      arrival: { kind: "rate", steps, mostInFlight: clients },
      requests: [{ function: "hello", path: "/", ...(isolation ? { isolation } : {}) }],
      pick: "in-turn",
    },
  ],
});
