import { type Plan, partsOf, plannedOf } from "#loadtests/lib/plan";
import type { K6Summary } from "./k6-lines.ts";
import type { Sample } from "./sample.ts";

/**
 * What each stream has dropped, or each of its steps. k6 counts what a stream drops as a whole, and not what it is behind with when its time is
 * over; so in a run that was not ended early it is what was due and not sent, if that is more. Of which step it was is reckoned in the same way.
 */
export function droppedByPart(
  { streams }: Plan,
  samples: readonly Sample[],
  summary: Pick<K6Summary, "dropped">,
  endedEarly: boolean,
): Map<string, number> {
  const sent = new Map<string, number>();
  for (const { stream } of samples) sent.set(stream, (sent.get(stream) ?? 0) + 1);
  const dropped = new Map<string, number>();
  for (const stream of streams) {
    const steps = stream.arrival.kind === "rate" ? stream.arrival.steps : [];
    const due = steps.reduce((sum, step) => sum + plannedOf(step), 0);
    const sentOfIt = partsOf(stream).reduce((sum, part) => sum + (sent.get(part) ?? 0), 0);
    // The one that is due at the very end may be left out.
    const missing = endedEarly ? 0 : Math.floor(due) - 1 - sentOfIt;
    let left = Math.max(summary.dropped[stream.name] ?? 0, missing);
    for (const step of steps) {
      const unsent = Math.round(plannedOf(step)) - (sent.get(step.name) ?? 0);
      const of = Math.min(left, Math.max(0, unsent));
      dropped.set(step.name, of);
      left -= of;
    }
    // A request that was due at the end of a step may have been sent in the next one.
    const last = partsOf(stream).at(-1) ?? stream.name;
    dropped.set(last, (dropped.get(last) ?? 0) + left);
  }
  return dropped;
}
