import { openHello } from "../lib/open-hello.ts";
import type { Scenario } from "../lib/plan.ts";

export const soak: Scenario = {
  name: "soak",
  shows: "an even load for long: whether the second half is slower than the first",
  durationMs: 60_000,
  longestMs: 1_800_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 50, clients = 100, isolation }) {
    const half = { perSecond: rate, durationMs: durationMs / 2 };
    const steps = [
      { name: "first-half", ...half },
      { name: "second-half", ...half },
    ];
    return {
      ...openHello("soak", steps, { clients, isolation }),
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", most: 0 },
        { measure: "p99_ms", stream: "second-half", most: 250 },
      ],
      versus: { by: "stream", a: "first-half", b: "second-half" },
    };
  },
};
