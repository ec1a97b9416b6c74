import type { Condition, PlacementRule, PlacementTable } from "./placement-table.ts";

/** The part of docs/placement.md that is made of the table; a test compares the two. */
export function documentTable({ version, rules, cost }: PlacementTable): string {
  const rows = rules.map(
    (rule) => `| \`${rule.id}\` | ${whenOf(rule.when)} | ${effectOf(rule)} | ${rule.why} |`,
  );
  const priors = Object.entries(cost.prior).map(([path, { acquireMs, memoryMb }]) => {
    const { cold, prepared, restored } = acquireMs;
    const shown = [cold, prepared, restored].map((ms) => ms ?? "-").join(" | ");
    return `| ${path} | ${shown} | ${memoryMb} |`;
  });
  return [
    `Version \`${version}\`. All rules whose condition holds fire, in this order.`,
    "",
    "| rule | when | what it does | the reason it gives |",
    "|---|---|---|---|",
    ...rows,
    "",
    "| path | cold, ms | prepared, ms | restored, ms | memory, MiB |",
    "|---|---|---|---|---|",
    ...priors,
    "",
    `A MiB counts as ${cost.msPerMb} ms. The other path is taken when it costs less than ${cost.switchBelow} of the last one. An observation counts half after ${cost.halfLifeMs / 60_000} minutes; the table's figures count as ${cost.priorWeight} observations.`,
  ].join("\n");
}

const NAMES: Record<keyof Condition, string> = {
  isolation: "isolation",
  runtime: "runtime",
  tier: "tier",
  wanted: "caller wants",
  minimumIsolation: "tenant's minimum",
  functionMinimum: "function's minimum",
  forbidden: "quota's paths lack",
  needs: "needs",
};

const whenOf = (when: Condition): string =>
  (Object.keys(NAMES) as (keyof Condition)[])
    .filter((name) => when[name] !== undefined)
    .map((name) => `${NAMES[name]} ${when[name]?.join(" or ")}`)
    .join(", ");

function effectOf({ effect }: PlacementRule): string {
  if ("atLeast" in effect) return `at least ${effect.atLeast}`;
  if ("not" in effect) return `no ${effect.not}, else \`${effect.code}\``;
  if ("pin" in effect) return `${effect.pin}, unless more is asked for`;
  if ("exactly" in effect)
    return `${effect.exactly}; if more is asked for \`isolation_not_allowed\``;
  if ("prefer" in effect) return `prefers ${effect.prefer}`;
  return "only tells";
}
