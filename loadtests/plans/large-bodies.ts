import { echo } from "../lib/functions.ts";
import type { Scenario } from "../lib/plan.ts";

const KIB = 1024;
/** On both sides of the 64 KiB that travel with a job, and near the 6 MiB that are the limit. */
const SIZES = [32 * KIB, 256 * KIB, 1024 * KIB, 5 * 1024 * KIB];

export const largeBodies: Scenario = {
  name: "large-bodies",
  shows: "bodies from 32 KiB to 5 MiB go there and come back whole, each compared by its SHA-256",
  durationMs: 10_000,
  longestMs: 120_000,
  heeds: ["clients", "isolation"],
  plan({ durationMs, clients = 4, isolation }) {
    return {
      functions: [echo()],
      tenants: [],
      streams: [
        {
          name: "bodies",
          startMs: 0,
          arrival: { kind: "clients", clients, durationMs },
          requests: SIZES.map((bodyBytes) => ({
            function: "echo",
            path: "/",
            bodyBytes,
            answer: "echo" as const,
            tag: `${bodyBytes / KIB} KiB`,
            ...(isolation ? { isolation } : {}),
          })),
          pick: "in-turn",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "p99_ms", most: 5000 },
      ],
    };
  },
};
