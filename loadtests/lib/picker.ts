import type { LoadRequest, Stream } from "./plan.ts";

/** Fixed: two runs of a scenario send the same requests in the same order. */
const SEED = 0x10ad;

/** A number from 0 to below 1 that depends on `n` alone: mulberry32, which visits each state once, at its nth step. */
function uniformAt(n: number): number {
  let state = (SEED + Math.imul(n + 1, 0x6d2b79f5)) | 0;
  state = Math.imul(state ^ (state >>> 15), state | 1);
  state ^= state + Math.imul(state ^ (state >>> 7), state | 61);
  return ((state ^ (state >>> 14)) >>> 0) / 2 ** 32;
}

/** What a stream sends as its nth request, and to which target: each target gets the same request before the next is picked, so that targets are compared request by request. */
export function picker(
  { requests, pick }: Pick<Stream, "requests" | "pick">,
  targets: number,
): (n: number) => { request: LoadRequest; target: number } {
  const sums: number[] = [];
  let sum = 0;
  for (const { weight = 1 } of requests) {
    sum += weight;
    sums.push(sum);
  }
  return (n) => {
    const turn = Math.floor(n / targets);
    const drawn = pick === "in-turn" ? 0 : uniformAt(turn) * sum;
    const index =
      pick === "in-turn" ? turn % requests.length : sums.findIndex((upTo) => drawn < upTo);
    return { request: requests[index] as LoadRequest, target: n % targets };
  };
}
