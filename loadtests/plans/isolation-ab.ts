import { hello } from "../lib/functions.ts";
import type { Scenario } from "../lib/plan.ts";

export const isolationAb: Scenario = {
  name: "isolation-ab",
  shows: "the same function by container and by micro-VM, request about request in one run",
  durationMs: 10_000,
  longestMs: 300_000,
  heeds: ["rate", "clients"],
  plan({ durationMs, rate = 100, clients = 100 }) {
    return {
      functions: [hello()],
      tenants: [],
      streams: [
        {
          name: "both",
          startMs: 0,
          arrival: {
            kind: "rate",
            steps: [{ name: "both", perSecond: rate, durationMs }],
            mostInFlight: clients,
          },
          requests: [
            { function: "hello", path: "/", isolation: "container" },
            { function: "hello", path: "/", isolation: "microvm" },
          ],
          pick: "in-turn",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", part: true, most: 0.01 },
      ],
      versus: { by: "path", a: "container", b: "microvm" },
    };
  },
};
