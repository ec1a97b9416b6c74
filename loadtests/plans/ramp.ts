import { openHello } from "../lib/open-hello.ts";
import type { Scenario } from "../lib/plan.ts";

const STEPS = 10;
/** Each step is so many times the one before: the first is far below the knee, and says how fast an answer is when none waits. */
const FACTOR = 1.7;

export const ramp: Scenario = {
  name: "ramp",
  shows:
    "rising rates in steps until answers no longer keep up: the knee is the last step that did",
  durationMs: 20_000,
  longestMs: 300_000,
  heeds: ["rate", "clients", "isolation"],
  plan({ durationMs, rate = 2400, clients = 200, isolation }) {
    const steps = Array.from({ length: STEPS }, (_, index) => ({
      name: `step-${index + 1}`,
      perSecond: rate / FACTOR ** (STEPS - 1 - index),
      durationMs: durationMs / STEPS,
    }));
    return {
      ...openHello("ramp", steps, { clients, isolation }),
      // Requests are dropped past the knee: that is what is looked for.
      thresholds: [{ measure: "failed", most: 0 }],
      findKnee: true,
    };
  },
};
