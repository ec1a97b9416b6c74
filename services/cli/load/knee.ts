/** One step of rising load. */
export interface Step {
  stream: string;
  seconds: number;
  offered_per_s: number;
  /** Right answers to what was sent in this step. */
  answered_per_s: number;
  dropped: number;
  failed: number;
  p50_ms: number | null;
  p99_ms: number | null;
  /** It did not keep up. */
  saturated: boolean;
}

export interface Knee {
  steps: Step[];
  /** The highest rate that was kept up with; null when not even the first was. */
  rate_per_s: number | null;
  /** False when even the last step was kept up with: the knee lies beyond. */
  found: boolean;
}

/** A step that answers less than this part of what is offered, by more than one request, does not keep up. */
const KEPT = 0.95;
/** Neither does one whose median is so many times that of the first: requests wait for each other. */
const SLOWER = 5;

/** Steps in rising order. One slow step between good ones is noise, not the knee: what follows it must not keep up either. */
export function findKnee(steps: readonly Omit<Step, "saturated">[]): Knee {
  const base = steps[0]?.p50_ms ?? null;
  const judged = steps.map((step): Step => {
    const missing = (step.offered_per_s - step.answered_per_s) * step.seconds;
    const behind = missing > Math.max(1, (1 - KEPT) * step.offered_per_s * step.seconds);
    const slow = base !== null && step.p50_ms !== null && step.p50_ms > SLOWER * base;
    return { ...step, saturated: behind || slow || step.failed > 0 };
  });
  const lastKept = judged.findLastIndex(({ saturated }) => !saturated);
  return {
    steps: judged,
    rate_per_s: judged[lastKept]?.offered_per_s ?? null,
    found: lastKept < judged.length - 1,
  };
}
