import { chunks } from "../lib/functions.ts";
import type { Scenario } from "../lib/plan.ts";

const [CHUNKS, BYTES, PAUSE_MS] = [20, 2048, 10];

export const streaming: Scenario = {
  name: "streaming",
  shows: "answers that come in twenty pieces: the first byte must not wait for the last",
  durationMs: 10_000,
  longestMs: 120_000,
  heeds: ["clients", "isolation"],
  plan({ durationMs, clients = 10, isolation }) {
    return {
      functions: [chunks({ concurrency: 10 })],
      tenants: [],
      streams: [
        {
          name: "streams",
          startMs: 0,
          arrival: { kind: "clients", clients, durationMs },
          requests: [
            {
              function: "chunks",
              path: `/?chunks=${CHUNKS}&bytes=${BYTES}&pause=${PAUSE_MS}`,
              answer: { bytes: CHUNKS * BYTES },
              ...(isolation ? { isolation } : {}),
            },
          ],
          pick: "in-turn",
        },
      ],
      thresholds: [
        { measure: "failed", most: 0 },
        { measure: "first_byte_p99_ms", most: 1000 },
      ],
    };
  },
};
