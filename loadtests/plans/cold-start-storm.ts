import { hello } from "../lib/functions.ts";
import type { Scenario } from "../lib/plan.ts";

const FUNCTIONS = 40;

export const coldStartStorm: Scenario = {
  name: "cold-start-storm",
  shows: "many functions that nobody has called yet are called at the same moment, once each",
  durationMs: 10_000,
  longestMs: 60_000,
  heeds: ["clients", "isolation"],
  plan({ clients = FUNCTIONS, isolation }) {
    const functions = Array.from({ length: clients }, (_, index) =>
      // Of one path, so that no snapshot is made for another.
      hello({ name: `f${index}`, memoryMb: 128, ...(isolation ? { isolation } : {}) }),
    );
    return {
      functions,
      tenants: [],
      streams: [
        {
          name: "storm",
          startMs: 0,
          arrival: { kind: "once" },
          requests: functions.map(({ name }) => ({
            function: name,
            path: "/",
            ...(isolation ? { isolation } : {}),
          })),
          pick: "in-turn",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "p99_over_p50", most: 10 },
      ],
    };
  },
};
