import { HOUR_MS } from "#contracts/usage";
import type { HourRange } from "#db/usage";
import { CloisterError } from "#errors/catalogue";

/** Longest range of one answer, days: a leap year. */
export const MAX_DAYS = 366;

const alignedDown = (ms: number): number => Math.floor(ms / HOUR_MS) * HOUR_MS;
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(".000Z", "Z");

/**
 * The whole UTC hours that `from` and `to` mean, both aligned down. Without `from` the month of `to` from its beginning, without `to`, or with
 * one that is still to come, up to the end of the hour of `nowMs`. Throws `bad_request` for a range that holds no hour or more than MAX_DAYS.
 */
export function hourRange(
  from: string | undefined,
  to: string | undefined,
  nowMs = Date.now(),
): HourRange {
  const end = alignedDown(nowMs) + HOUR_MS;
  const toMs = Math.min(end, to === undefined ? end : alignedDown(Date.parse(to)));
  const fromMs = from === undefined ? monthBefore(toMs) : alignedDown(Date.parse(from));
  if (fromMs >= toMs) throw new CloisterError("bad_request", whyEmpty(from, to, nowMs));
  if (toMs - fromMs > MAX_DAYS * 24 * HOUR_MS)
    throw new CloisterError(
      "bad_request",
      `The range is longer than ${MAX_DAYS} days: ask for it a year at a time`,
    );
  return { fromMs, toMs };
}

function whyEmpty(from: string | undefined, to: string | undefined, nowMs: number): string {
  if (from === undefined) return "to lies before any usage";
  if (to !== undefined && Date.parse(from) > Date.parse(to)) return "from lies after to";
  if (Date.parse(from) > nowMs) return "from lies in the future";
  return "from and to lie in the same hour: usage is told by whole UTC hours, and the hour of to is left out";
}

/** Beginning of the month that holds the last moment before this one. */
function monthBefore(ms: number): number {
  const last = new Date(ms - 1);
  return Date.UTC(last.getUTCFullYear(), last.getUTCMonth());
}
