import type { QuotaExcess, QuotaField } from "#contracts/quota";
import { CloisterError } from "#errors/catalogue";
import { type RateLimitHeaders, usedUpHeaders } from "./rate-limit-headers.ts";

/** Rides in the error's `extra`; `quota`, `of` and `limit` are told to the caller, the rest become headers. */
export interface QuotaErrorExtra extends QuotaExcess {
  retryAfterS: number;
  headers: RateLimitHeaders;
}

/** What no time refills is not worth asking for again sooner: an administrator must act, or the caller ask for less, s. */
const NEXT_LOOK_S = 3600;

const WHAT: Record<QuotaField, (limit: number | string) => string> = {
  requestsPerSecond: (limit) => `${limit} calls a second`,
  burst: (limit) => `${limit} calls at once after a rest`,
  concurrency: (limit) => `${limit} calls at once`,
  memoryMb: (limit) => `functions of at most ${limit} MiB`,
  gbSecondsPerMonth: (limit) => `${limit} GB-seconds a month`,
  functions: (limit) => `${limit} functions`,
  bundleBytes: (limit) => `bundles of at most ${limit} bytes`,
  timeoutMs: (limit) => `functions of at most ${limit} ms`,
  asyncBacklog: (limit) => `${limit} asynchronous calls that wait`,
  paths: (limit) => `the paths ${limit}`,
  minimumIsolation: (limit) => `at least ${limit}`,
};

/** `quota_exceeded` that names the quota. */
export function quotaExceeded(
  excess: QuotaExcess,
  retryAfterS: number = NEXT_LOOK_S,
  headers: RateLimitHeaders = usedUpHeaders(excess),
): CloisterError {
  const { quota, of, limit } = excess;
  const extra: QuotaErrorExtra = { quota, of, limit, retryAfterS, headers };
  return new CloisterError(
    "quota_exceeded",
    `The ${of}'s quota ${quota} allows ${WHAT[quota](limit)}`,
    { ...extra },
  );
}

/** What an error tells of a quota; undefined for any other error. One made where headers are not known gets them here. */
export function quotaOf(error: CloisterError): QuotaErrorExtra | undefined {
  if (error.code !== "quota_exceeded") return undefined;
  const extra = error.extra as Partial<QuotaErrorExtra>;
  const { quota, of = "tenant", limit = 0 } = extra;
  if (quota === undefined) return undefined;
  return {
    quota,
    of,
    limit,
    retryAfterS: extra.retryAfterS ?? NEXT_LOOK_S,
    headers: extra.headers ?? usedUpHeaders({ quota, of, limit }),
  };
}
