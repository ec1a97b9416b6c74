import type { Versus } from "#loadtests/lib/plan";
import { LEAST_VALUES } from "#report/statistics";
import { type Group, type GroupKey, keyText, rounded } from "./groups.ts";
import { type Interval, type Ordered, ratioInterval } from "./quantile-interval.ts";

/** How many times as long b took as a. */
export interface Ratio {
  name: string;
  a: string;
  b: string;
  n_a: number;
  n_b: number;
  /** Null for fewer answers than can tell: 5 for a p50, 100 for a p99. */
  p50: Interval | null;
  p99: Interval | null;
}

const orderedOf = ({ quantiles_ms, ok }: Group): Ordered => ({ values: quantiles_ms, n: ok });

function ratio(name: string, labels: { a: string; b: string }, a: Group, b: Group): Ratio {
  const fewest = Math.min(a.ok, b.ok);
  const at = (part: number): Interval | null => {
    if (fewest < LEAST_VALUES || fewest * (1 - part) < 1) return null;
    const found = ratioInterval(orderedOf(a), orderedOf(b), part);
    return found
      ? {
          value: rounded(found.value) as number,
          low: rounded(found.low) as number,
          high: rounded(found.high) as number,
        }
      : null;
  };
  return { name, ...labels, n_a: a.ok, n_b: b.ok, p50: at(0.5), p99: at(0.99) };
}

const nameOf = (parts: readonly (string | null)[]): string =>
  parts.filter((part) => part !== null && part !== "").join(" ") || "all";

/** Pairs of groups that are the same but for one part of their key. */
function pairs(
  groups: readonly Group[],
  by: keyof GroupKey,
  labels: { a: string; b: string },
): Ratio[] {
  const several = new Set(groups.map(({ target }) => target)).size > 1;
  return groups.flatMap((a) => {
    if (a[by] !== labels.a) return [];
    const wanted = keyText({ ...a, [by]: labels.b });
    const b = groups.find((one) => keyText(one) === wanted);
    if (!b || a.ok === 0 || b.ok === 0) return [];
    const parts: (keyof GroupKey)[] = ["stream", "tag", "path", "start"];
    const rest: (keyof GroupKey)[] = several ? ["target", ...parts] : parts;
    return [ratio(nameOf(rest.filter((key) => key !== by).map((key) => a[key])), labels, a, b)];
  });
}

/** What the scenario sets against each other, within one run. */
export const compareWithin = (groups: readonly Group[], { by, a, b }: Versus): Ratio[] =>
  pairs(groups, by, { a, b });

/** Two services called in turn in one run. */
export const compareTargets = (groups: readonly Group[], a: string, b: string): Ratio[] =>
  pairs(groups, "target", { a, b });

/** This run against an earlier one: a trend, because the machine may have been in another state. */
export function compareRuns(earlier: readonly Group[], now: readonly Group[]): Ratio[] {
  return now.flatMap((b) => {
    const a = earlier.find((one) => keyText(one) === keyText(b));
    if (!a || a.ok === 0 || b.ok === 0) return [];
    const name = nameOf([b.stream, b.tag, b.path, b.start]);
    return [ratio(name, { a: "baseline", b: "this run" }, a, b)];
  });
}
