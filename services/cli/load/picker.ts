import type { LoadRequest, Stream } from "#loadtests/lib/plan";
import { uniform } from "./quantile-interval.ts";

/** Fixed: two runs of a scenario send the same requests in the same order. */
const SEED = 0x10ad;

/** What a stream sends next, and to whom: each target gets the same request before the next is picked, so that targets are compared request by request. */
export function picker<T>(
  { requests, pick }: Pick<Stream, "requests" | "pick">,
  targets: readonly T[],
): () => { request: LoadRequest; caller: T } {
  const sums: number[] = [];
  let sum = 0;
  for (const { weight = 1 } of requests) {
    sum += weight;
    sums.push(sum);
  }
  const random = uniform(SEED);
  let turn = 0;
  let request: LoadRequest | undefined;
  return () => {
    const target = turn % targets.length;
    if (target === 0 || request === undefined) {
      const drawn = random() * sum;
      const index =
        pick === "in-turn"
          ? Math.floor(turn / targets.length) % requests.length
          : sums.findIndex((upTo) => drawn < upTo);
      request = requests[index] as LoadRequest;
    }
    turn += 1;
    return { request, caller: targets[target] as T };
  };
}
