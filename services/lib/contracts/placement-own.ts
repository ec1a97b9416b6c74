import { z } from "zod";
import { pathSchema } from "./function.ts";
import {
  type CostRules,
  conditionSchema,
  type PlacementRule,
  type PlacementTable,
} from "./placement-table.ts";

const text = z.string().min(1).max(300);
const ms = z.number().min(0).max(600_000);
const costSchema = z.strictObject({
  acquireMs: z.strictObject({ cold: ms, prepared: ms.optional(), restored: ms.optional() }),
  memoryMb: z.number().min(0).max(65_536),
});

/**
 * A table of a node's or an installation's own, as CLOISTER_PLACEMENT_RULES names a file of it. It adds to the built-in one: its rules can only ask for
 * more isolation or take a path away, and there is no way to leave a built-in rule out; so nothing that is written in it makes a call run
 * on less than its function, tenant and caller ask for.
 */
export const ownTableSchema = z.strictObject({
  version: z.string().regex(/^[A-Za-z0-9._-]{1,40}$/, "1 to 40 of A-Z, a-z, 0-9, ., _ and -"),
  rules: z
    .array(
      z.strictObject({
        id: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1 to 63 of a-z, 0-9 and -"),
        when: conditionSchema.default({}),
        effect: z.union(
          [z.strictObject({ atLeast: pathSchema }), z.strictObject({ not: pathSchema })],
          'must be {"atLeast": path} or {"not": path}: own rules can only ask for more',
        ),
        why: text,
        remedy: text.optional(),
      }),
    )
    .max(100)
    .default([]),
  /** Which path trusted tenants' functions with isolation auto take, of those that may serve them. */
  prefer: z.union([pathSchema, z.literal("cheaper")]).optional(),
  cost: z
    .strictObject({
      prior: z.strictObject({ container: costSchema, microvm: costSchema }).partial(),
      msPerMb: z.number().min(0).max(1000),
      switchBelow: z.number().min(0.05).max(1),
      halfLifeMs: z.number().min(1000).max(86_400_000),
      priorWeight: z.number().min(0.1).max(1000),
    })
    .partial()
    .default({}),
});
export type OwnTable = z.infer<typeof ownTableSchema>;

/** Ids that a decision itself gives, beside those of rules. */
export const DECISION_RULES = [
  ...["node-offers", "node-lacks", "node-unreachable"],
  ...["cost-ready", "cost-cheaper", "cost-stays"],
] as const;

/** The table with a node's own on top. Throws a sentence that names what is wrong. */
export function extendTable(base: PlacementTable, own: OwnTable): PlacementTable {
  const taken = new Set<string>([...base.rules.map(({ id }) => id), ...DECISION_RULES]);
  const rules = own.rules.map(({ effect, remedy, ...rule }): PlacementRule => {
    if (taken.has(rule.id)) throw new Error(`there is a rule ${rule.id} already`);
    taken.add(rule.id);
    return {
      ...rule,
      effect: "not" in effect ? { ...effect, code: "isolation_unavailable" } : effect,
      ...(remedy === undefined ? {} : { remedy }),
    };
  });
  const { prefer } = own;
  if (prefer !== undefined) rules.push(preference(prefer));
  const { prior, ...cost } = own.cost;
  return {
    version: `${base.version}+${own.version}`,
    rules: [...base.rules, ...rules],
    cost: {
      ...base.cost,
      ...(cost as Partial<CostRules>),
      prior: {
        container: prior?.container ?? base.cost.prior.container,
        microvm: prior?.microvm ?? base.cost.prior.microvm,
      },
    },
  };
}

const preference = (prefer: NonNullable<OwnTable["prefer"]>): PlacementRule => ({
  id: "own-preference",
  when: { isolation: ["auto"], tier: ["trusted"], wanted: ["none"] },
  effect: { prefer },
  why: `this installation prefers ${prefer === "cheaper" ? "the cheaper path" : prefer}`,
});
