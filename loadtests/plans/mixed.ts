import { busy, chunks, echo, hello } from "../lib/functions.ts";
import type { LoadRequest, Scenario } from "../lib/plan.ts";

/** Pareto with this exponent and least value, cut off: most calls are short, a few take most of the time. */
const [SHAPE, LEAST_MS, MOST_MS, KINDS] = [1.1, 1, 200, 40];

/** The middles of equally likely parts of the distribution. */
export const heavyTailMs = Array.from({ length: KINDS }, (_, index) =>
  Math.min(MOST_MS, Math.round(LEAST_MS / (1 - (index + 0.5) / KINDS) ** (1 / SHAPE))),
);

export const mixed: Scenario = {
  name: "mixed",
  shows: "small, streaming and computing functions together, of which a few take long (Pareto)",
  durationMs: 10_000,
  longestMs: 600_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 60, clients = 100, isolation }) {
    const asked = isolation ? { isolation } : {};
    const requests: LoadRequest[] = [
      { function: "hello", path: "/", weight: 50, tag: "hello" },
      { function: "echo", path: "/", bodyBytes: 4096, answer: "echo", weight: 15, tag: "echo" },
      {
        function: "chunks",
        path: "/?chunks=5&bytes=1024&pause=5",
        answer: { bytes: 5 * 1024 },
        weight: 10,
        tag: "chunks",
      },
      ...heavyTailMs.map((ms) => ({
        function: "busy",
        path: `/?ms=${ms}`,
        weight: 25 / KINDS,
        tag: "busy",
      })),
    ];
    return {
      functions: [hello(), echo(), chunks(), busy()],
      tenants: [],
      streams: [
        {
          name: "mixed",
          startMs: 0,
          arrival: {
            kind: "rate",
            steps: [{ name: "mixed", perSecond: rate, durationMs }],
            mostInFlight: clients,
          },
          requests: requests.map((one) => ({ ...one, ...asked })),
          pick: "by-weight",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "dropped", part: true, most: 0.01 },
        { measure: "p99_ms", most: 2000 },
      ],
    };
  },
};
