import { hello } from "../lib/functions.ts";
import type { Scenario } from "../lib/plan.ts";

export const quotaEdge: Scenario = {
  name: "quota-edge",
  shows:
    "twice as many requests as the quota allows: so many are answered, the others are refused and told when to come again",
  durationMs: 10_000,
  longestMs: 120_000,
  heeds: ["rate", "isolation"],
  plan({ durationMs, rate = 60, isolation }) {
    const requestsPerSecond = Math.max(1, Math.floor(rate / 2));
    const burst = Math.max(1, Math.floor(requestsPerSecond / 2));
    const sent = (rate * durationMs) / 1000;
    const allowed = (requestsPerSecond * durationMs) / 1000 + burst;
    return {
      functions: [hello({ tenant: "limited" })],
      tenants: [{ name: "limited", tier: "standard", quota: { requestsPerSecond, burst } }],
      streams: [
        {
          name: "edge",
          startMs: 0,
          arrival: {
            kind: "rate",
            steps: [{ name: "edge", perSecond: rate, durationMs }],
            mostInFlight: 200,
          },
          requests: [
            {
              function: "hello",
              path: "/",
              mayBeRefused: true,
              ...(isolation ? { isolation } : {}),
            },
          ],
          pick: "in-turn",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        // A second more than planned: the last requests may be sent late.
        { measure: "ok", most: Math.min(sent, Math.ceil(allowed + requestsPerSecond)) },
        { measure: "ok", least: Math.floor(Math.min(sent, allowed) * 0.8) },
        { measure: "refused", least: 1 },
      ],
    };
  },
};
