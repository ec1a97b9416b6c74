import type { InvocationLimits, QuotaExcess, QuotaField, QuotaOwner } from "#contracts/quota";
import type { CountersAnswer, Left } from "#queue/quota-counters";

/** Structured fields (RFC 9651) of draft-ietf-httpapi-ratelimit-headers: what is allowed, and what of it is left. */
export interface RateLimitHeaders {
  policy: string;
  limit: string;
}

/** A function's own limits stand beside its tenant's, so they need names of their own. */
const nameOf = (of: QuotaOwner, quota: QuotaField): string =>
  of === "tenant" ? `"${quota}"` : `"function-${quota}"`;

const OWNERS: readonly QuotaOwner[] = ["tenant", "function"];
const policies = new WeakMap<InvocationLimits, string>();

/** `"requestsPerSecond";q=20;w=2, "concurrency";q=5;qu="concurrent-requests"`: q of it in w seconds. */
function policyOf(limits: InvocationLimits): string {
  let text = policies.get(limits);
  if (text !== undefined) return text;
  const items: string[] = [];
  for (const of of OWNERS) {
    const { requests, concurrency } = limits[of];
    if (requests) {
      const windowS = Math.max(1, Math.ceil(requests.burst / requests.perSecond));
      const allowed = Math.max(1, Math.floor(requests.perSecond * windowS));
      items.push(`${nameOf(of, "requestsPerSecond")};q=${allowed};w=${windowS}`);
    }
    if (concurrency !== undefined)
      items.push(`${nameOf(of, "concurrency")};q=${concurrency};qu="concurrent-requests"`);
  }
  const { gbSecondsPerMonth } = limits.tenant;
  if (gbSecondsPerMonth !== undefined)
    items.push(
      `${nameOf("tenant", "gbSecondsPerMonth")};q=${Math.floor(gbSecondsPerMonth)};qu="gb-seconds"`,
    );
  text = items.join(", ");
  policies.set(limits, text);
  return text;
}

export function rateLimitHeaders(
  limits: InvocationLimits,
  answer: CountersAnswer,
): RateLimitHeaders {
  const items: string[] = [];
  const add = (of: QuotaOwner, { requests, concurrency }: Left): void => {
    if (requests)
      items.push(
        `${nameOf(of, "requestsPerSecond")};r=${requests.left};t=${Math.ceil(requests.fullAfterMs / 1000)}`,
      );
    if (concurrency !== undefined) items.push(`${nameOf(of, "concurrency")};r=${concurrency}`);
  };
  add("tenant", answer.tenant);
  add("function", answer.function);
  const { gbSecondsPerMonth } = limits.tenant;
  if (gbSecondsPerMonth !== undefined && answer.month) {
    const left = Math.max(0, Math.floor(gbSecondsPerMonth - answer.month.gbSeconds));
    items.push(
      `${nameOf("tenant", "gbSecondsPerMonth")};r=${left};t=${secondsLeftOf(answer.month.name, answer.nowUs)}`,
    );
  }
  return { policy: policyOf(limits), limit: items.join(", ") };
}

/** Until the next month begins by Redis's clock, s, at least 1. */
export function secondsLeftOf(month: string, nowUs: number): number {
  const end = new Date(`${month}-01T00:00:00Z`);
  end.setUTCMonth(end.getUTCMonth() + 1);
  return Math.max(1, Math.ceil((end.getTime() - nowUs / 1000) / 1000));
}

/** Headers for a quota that no time refills: what is allowed, and that nothing is left. */
export const usedUpHeaders = ({ of, quota, limit }: QuotaExcess): RateLimitHeaders => ({
  policy: `${nameOf(of, quota)};q=${typeof limit === "number" ? Math.floor(limit) : 1}`,
  limit: `${nameOf(of, quota)};r=0`,
});
