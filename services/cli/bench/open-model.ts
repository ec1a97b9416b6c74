/** What came of arrivals at a constant rate. */
export interface Arrivals {
  /** From the moment a request was due to the end of its answer, ms: one that had to wait for this process has waited. */
  times: number[];
  failures: string[];
  /** Were due while as many as may be were under way: not sent, as a client that has given up. */
  dropped: number;
  /** From the first arrival until the last answer, s. */
  seconds: number;
}

export interface OpenModel {
  ratePerSecond: number;
  seconds: number;
  /** Requests under way at once, at most. */
  mostAtOnce: number;
  signal: AbortSignal;
}

/** How often it is looked what is due, ms. */
const TICK_MS = 1;

/**
 * Sends requests as they are due, whether those before have been answered or not: who is slow meets a queue, as with users who do not know of each
 * other. Resolves when all have ended.
 */
export function arrive(
  { ratePerSecond, seconds, mostAtOnce, signal }: OpenModel,
  send: () => Promise<void>,
): Promise<Arrivals> {
  const { promise, resolve } = Promise.withResolvers<Arrivals>();
  const found: Arrivals = { times: [], failures: [], dropped: 0, seconds: 0 };
  const began = performance.now();
  const all = Math.max(1, Math.round(ratePerSecond * seconds));
  let due = 0;
  let underWay = 0;
  let over = false;
  const endIfDone = (): void => {
    if (!over || underWay > 0) return;
    found.seconds = (performance.now() - began) / 1000;
    resolve(found);
  };
  const sendOne = (dueMs: number): void => {
    underWay++;
    send()
      .then(
        () => void found.times.push(performance.now() - dueMs),
        (error: unknown) =>
          void found.failures.push(error instanceof Error ? error.message : String(error)),
      )
      .finally(() => {
        underWay--;
        endIfDone();
      });
  };
  const timer = setInterval(() => {
    const passed = performance.now() - began;
    const until = Math.min(all, Math.floor((passed / 1000) * ratePerSecond) + 1);
    for (; due < until && !signal.aborted; due++) {
      if (underWay >= mostAtOnce) found.dropped++;
      else sendOne(began + (due / ratePerSecond) * 1000);
    }
    if (due < all && !signal.aborted) return;
    clearInterval(timer);
    over = true;
    endIfDone();
  }, TICK_MS);
  return promise;
}
