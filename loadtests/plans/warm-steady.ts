import { openHello } from "../lib/open-hello.ts";
import type { Scenario } from "../lib/plan.ts";

export const warmSteady: Scenario = {
  name: "warm-steady",
  shows:
    "one small function at a constant arrival rate; what cannot be sent in time is dropped and counted",
  durationMs: 10_000,
  longestMs: 600_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 100, clients = 100, isolation }) {
    return {
      ...openHello("steady", [{ name: "steady", perSecond: rate, durationMs }], {
        clients,
        isolation,
      }),
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", part: true, most: 0.01 },
        { measure: "p99_ms", most: 250 },
      ],
    };
  },
};
