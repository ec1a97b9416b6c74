import { steady } from "../lib/arrivals.ts";
import { hello } from "../lib/functions.ts";
import type { Arrival, LoadRequest, Scenario } from "../lib/plan.ts";

export const soak: Scenario = {
  name: "soak",
  shows: "an even load for long: whether the second half is slower than the first",
  durationMs: 60_000,
  longestMs: 1_800_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 50, clients = 100, isolation }) {
    const requests: LoadRequest[] = [
      { function: "hello", path: "/", ...(isolation ? { isolation } : {}) },
    ];
    const half = durationMs / 2;
    const arrival: Arrival = {
      kind: "rate",
      stages: [steady(rate, half)],
      mostInFlight: clients,
    };
    return {
      functions: [hello()],
      tenants: [],
      streams: [
        { name: "first-half", startMs: 0, arrival, requests, pick: "in-turn" },
        { name: "second-half", startMs: half, arrival, requests, pick: "in-turn" },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", most: 0 },
        { measure: "p99_ms", stream: "second-half", most: 250 },
      ],
      versus: { by: "stream", a: "first-half", b: "second-half" },
    };
  },
};
