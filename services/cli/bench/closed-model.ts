import type { Arrivals } from "./open-model.ts";

export interface ClosedModel {
  /** Requests under way at once, always. */
  callers: number;
  seconds: number;
  signal: AbortSignal;
}

/**
 * So many callers, each of whom asks again as soon as it has its answer: what a service can do, and how it shares it out among them. Who is slow is
 * asked less, so nothing is ever dropped. Resolves when all have their last answer.
 */
export async function callers(
  { callers: count, seconds, signal }: ClosedModel,
  send: () => Promise<void>,
): Promise<Arrivals> {
  const found: Arrivals = { times: [], failures: [], dropped: 0, seconds: 0 };
  const began = performance.now();
  const untilMs = began + seconds * 1000;
  const caller = async (): Promise<void> => {
    for (let now = began; now < untilMs && !signal.aborted; ) {
      const askedMs = performance.now();
      try {
        await send();
        now = performance.now();
        found.times.push(now - askedMs);
      } catch (error) {
        now = performance.now();
        found.failures.push(error instanceof Error ? error.message : String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: count }, caller));
  found.seconds = (performance.now() - began) / 1000;
  return found;
}
