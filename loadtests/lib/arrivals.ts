import type { Stage, Stream } from "./plan.ts";

/** When the requests of an open stream are due, ms after its beginning: where the integral of the rate passes whole numbers. */
export function* arrivalTimes(stages: readonly Stage[]): Generator<number> {
  let startMs = 0;
  let before = 0;
  let next = 0;
  for (const { fromPerSecond, toPerSecond, durationMs } of stages) {
    const from = fromPerSecond / 1000;
    const slope = (toPerSecond - fromPerSecond) / 1000 / durationMs;
    const total = ((fromPerSecond + toPerSecond) / 2 / 1000) * durationMs;
    for (; next < before + total - 1e-9; next++) {
      const wanted = Math.max(0, next - before);
      // The root of slope/2 t² + from t = wanted, in the form that stays exact for a slope near zero.
      const root = Math.sqrt(Math.max(0, from * from + 2 * slope * wanted));
      const t = wanted === 0 ? 0 : (2 * wanted) / (from + root);
      yield startMs + Math.min(durationMs, t);
    }
    startMs += durationMs;
    before += total;
  }
}

export const stagesMs = (stages: readonly Stage[]): number =>
  stages.reduce((sum, { durationMs }) => sum + durationMs, 0);

/** How long a stream sends. */
export function streamMs({ arrival }: Stream): number {
  if (arrival.kind === "rate") return stagesMs(arrival.stages);
  return arrival.kind === "clients" ? arrival.durationMs : 0;
}

/** How many requests an open stream sends, or a list; undefined for clients, who send as many as are answered. */
export function plannedRequests({ arrival, requests }: Stream): number | undefined {
  if (arrival.kind === "clients") return undefined;
  if (arrival.kind === "once") return requests.length;
  return arrival.stages.reduce(
    (sum, one) => sum + ((one.fromPerSecond + one.toPerSecond) / 2000) * one.durationMs,
    0,
  );
}

export const steady = (perSecond: number, durationMs: number): Stage => ({
  fromPerSecond: perSecond,
  toPerSecond: perSecond,
  durationMs,
});
