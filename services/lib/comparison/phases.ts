import type { StartReport } from "#contracts/comparison";

/** Parts of a run that follow each other, in their order, with words for people. */
export const PARTS = {
  queue: "queue",
  place: "placement",
  create: "sandbox made",
  runtime: "runtime boots",
  assign: "function put in",
  restore: "brought back",
  renew: "made new after that",
  init: "function loaded",
  acquire: "else until it was there",
  handler: "function answers",
  reply: "answer sent",
  rest: "rest: gateway, wake-ups",
} as const;
export type Part = keyof typeof PARTS;

/** What a run of this start is made of, ms: phases that hold others less those, and what no phase covers. Medians, so they need not add up to the last digit. */
export function partsOf({
  phases,
  p50_ms,
}: Pick<StartReport, "phases" | "p50_ms">): Partial<Record<Part, number>> {
  const of = (name: string): number => phases[`${name}_ms`] ?? 0;
  const inAcquire = of("create") + of("runtime") + of("assign") + of("init");
  const parts: Partial<Record<Part, number>> = {
    queue: of("queue"),
    place: of("place"),
    create: of("create"),
    runtime: of("runtime"),
    assign: of("assign"),
    restore: Math.max(0, of("restore") - of("renew")),
    renew: of("renew"),
    init: of("init"),
    acquire: Math.max(0, of("acquire") - inAcquire),
    handler: of("handler"),
    reply: of("reply"),
  };
  const sum = Object.values(parts).reduce((total, value) => total + value, 0);
  parts.rest = Math.max(0, (p50_ms ?? sum) - sum);
  return parts;
}

/** The same in percent of their sum. */
export function sharesOf(parts: Partial<Record<Part, number>>): Partial<Record<Part, number>> {
  const sum = Object.values(parts).reduce((total, value) => total + value, 0);
  const shares: Partial<Record<Part, number>> = {};
  for (const part of Object.keys(parts) as Part[])
    shares[part] = sum > 0 ? ((parts[part] ?? 0) / sum) * 100 : 0;
  return shares;
}
