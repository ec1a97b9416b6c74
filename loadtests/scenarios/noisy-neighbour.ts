import { steady } from "../lib/arrivals.ts";
import { busy, hello } from "../lib/functions.ts";
import type { LoadRequest, Scenario } from "../lib/plan.ts";

/** A call of the neighbour computes so long, ms. */
const NOISE_MS = 20;

export const noisyNeighbour: Scenario = {
  name: "noisy-neighbour",
  shows: "what one tenant notices when another computes as much as it may",
  durationMs: 12_000,
  longestMs: 300_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 20, clients = 16, isolation }) {
    const half = durationMs / 2;
    const asked = isolation ? { isolation } : {};
    const requests: LoadRequest[] = [{ function: "quiet", path: "/", ...asked }];
    const quiet = {
      arrival: { kind: "rate" as const, stages: [steady(rate, half)], mostInFlight: 100 },
      requests,
      pick: "in-turn" as const,
    };
    return {
      functions: [
        hello({ name: "quiet", tenant: "quiet" }),
        busy({ name: "noisy", tenant: "noisy" }),
      ],
      tenants: [
        { name: "quiet", tier: "standard", quota: {} },
        { name: "noisy", tier: "standard", quota: {} },
      ],
      streams: [
        { name: "alone", startMs: 0, ...quiet },
        { name: "beside", startMs: half, ...quiet },
        {
          name: "noise",
          startMs: half,
          arrival: { kind: "clients", clients, durationMs: half },
          requests: [{ function: "noisy", path: `/?ms=${NOISE_MS}`, mayBeRefused: true, ...asked }],
          pick: "in-turn",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", stream: "beside", most: 0 },
        { measure: "p99_ms", stream: "beside", most: 1000 },
      ],
      versus: { by: "stream", a: "alone", b: "beside" },
    };
  },
};
