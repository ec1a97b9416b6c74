import { busy, hello } from "../lib/functions.ts";
import type { Scenario } from "../lib/plan.ts";

/** A call of the neighbour computes so long, ms. */
const NOISE_MS = 20;

export const noisyNeighbour: Scenario = {
  name: "noisy-neighbour",
  shows: "what one tenant notices when another computes as much as it may",
  durationMs: 12_000,
  shortestMs: 2000,
  longestMs: 300_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 20, clients = 16, isolation }) {
    const half = durationMs / 2;
    const asked = isolation ? { isolation } : {};
    const steps = [
      { name: "alone", perSecond: rate, durationMs: half },
      { name: "beside", perSecond: rate, durationMs: half },
    ];
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
        {
          name: "quiet",
          startMs: 0,
          arrival: { kind: "rate", steps, mostInFlight: 100 },
          requests: [{ function: "quiet", path: "/", ...asked }],
          pick: "in-turn",
        },
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
