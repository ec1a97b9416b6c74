import { openHello } from "../lib/open-hello.ts";
import type { Scenario } from "../lib/plan.ts";

/** The burst is so many times what comes before and after it. */
const TIMES = 10;

export const burst: Scenario = {
  name: "burst",
  shows: "ten times the usual rate for a fifth of the time, and how soon it is as before",
  durationMs: 10_000,
  longestMs: 300_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 300, clients = 200, isolation }) {
    const part = durationMs / 5;
    const usual = rate / TIMES;
    const steps = [
      { name: "before", perSecond: usual, durationMs: part * 2 },
      { name: "burst", perSecond: rate, durationMs: part },
      { name: "after", perSecond: usual, durationMs: part * 2 },
    ];
    return {
      ...openHello("all", steps, { clients, isolation }),
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", stream: "after", most: 0 },
        { measure: "p99_ms", stream: "after", most: 500 },
      ],
      versus: { by: "stream", a: "before", b: "after" },
    };
  },
};
