import type { ErrorCode } from "../errors/catalogue.ts";
import { type Isolation, type Path, RUNTIMES, type Runtime } from "./function.ts";
import { NEEDS, type Need } from "./need-kinds.ts";
import {
  type Condition,
  type PlacementRule,
  type PlacementTable,
  TIERS,
  type Tier,
} from "./placement-table.ts";

/** What decides which paths may serve a call, wherever it comes to run. */
export interface DemandInput {
  /** What the function's configuration asks for. */
  isolation: Isolation;
  runtime: Runtime;
  /** What the caller's Cloister-Isolation header asks for. */
  wanted: Path | undefined;
  tier: Tier;
  /** Least isolation of the tenant, and of this function by its quota; absent or null when none is set. */
  minimumIsolation?: Path | null | undefined;
  functionMinimum?: Path | null | undefined;
  /** Paths the tenant may use; absent or null means all. */
  paths?: readonly Path[] | null | undefined;
  /** What the bundle and its configuration need for certain. */
  needs?: readonly Need[] | undefined;
}

/** Why, in plain words, and beside each reason the id of the rule that gave it. */
export interface Explained {
  reasons: readonly string[];
  rules: readonly string[];
  /** Version of the table that the rules are of. */
  table: string;
}

/** What may serve a call. Shared between calls: never changed. */
export interface Demand extends Explained {
  /** In order of preference, never empty. */
  paths: readonly Path[];
  /** The order is only a first guess: whoever knows what the paths cost now takes the cheaper one. */
  cheaper: boolean;
}

/** No path may serve this; `detail` says why in one sentence, `reasons` how far the rules came. */
export interface Refusal extends Explained {
  refused: ErrorCode;
  detail: string;
  remedy?: string;
}

/** From the weakest to the strongest. */
export const PATHS = ["container", "microvm"] as const satisfies readonly Path[];
const WANTED = ["none", ...PATHS] as const;
const ISOLATIONS = ["auto", ...PATHS] as const;

export const strengthOf = (path: Path): number => PATHS.indexOf(path);
export const named = (path: Path): string => (path === "microvm" ? "micro-VM" : "container");

/** Bit fields of the inputs of which there is exactly one: a rule's mask has all bits of a field it does not name. */
const FIELDS = [
  ["isolation", ISOLATIONS],
  ["runtime", RUNTIMES],
  ["tier", TIERS],
  ["wanted", WANTED],
  ["minimumIsolation", WANTED],
  ["functionMinimum", WANTED],
] as const;
/** And of those of which there may be several or none: a rule that names some wants any of them. */
const FORBIDDEN_BITS = PATHS.length;

interface Compiled {
  rule: PlacementRule;
  one: number;
  forbidden: number;
  needs: number;
}

const bitsOf = <T>(all: readonly T[], some: readonly T[]): number =>
  some.reduce((bits, member) => bits | (1 << all.indexOf(member)), 0);

function compile(rule: PlacementRule): Compiled {
  const when: Condition = rule.when;
  let one = 0;
  let shift = 0;
  for (const [name, all] of FIELDS) {
    const named: readonly string[] | undefined = when[name];
    one |= (named ? bitsOf<string>(all, named) : (1 << all.length) - 1) << shift;
    shift += all.length;
  }
  return {
    rule,
    one,
    forbidden: bitsOf(PATHS, when.forbidden ?? []),
    needs: bitsOf(NEEDS, when.needs ?? []),
  };
}

const index = (all: readonly string[], value: string): number => {
  const at = all.indexOf(value);
  // Whoever got round the schemas must not get round the rules.
  if (at < 0) throw new Error(`Placement knows no ${JSON.stringify(value)}`);
  return at;
};

/** Applies a table. Decisions of the same input are the same object: there are few, and most calls are alike. */
export class PlacementEngine {
  readonly table: PlacementTable;
  readonly #rules: readonly Compiled[];
  readonly #known = new Map<number, Demand | Refusal>();

  constructor(table: PlacementTable) {
    this.table = table;
    this.#rules = table.rules.map(compile);
  }

  /** Which paths may serve a call: never one that is weaker than any demand. */
  demandOf(input: DemandInput): Demand | Refusal {
    let one = 0;
    let shift = 0;
    const put = (all: readonly string[], value: string): void => {
      one |= 1 << (shift + index(all, value));
      shift += all.length;
    };
    put(ISOLATIONS, input.isolation);
    put(RUNTIMES, input.runtime);
    put(TIERS, input.tier);
    put(WANTED, input.wanted ?? "none");
    put(WANTED, input.minimumIsolation ?? "none");
    put(WANTED, input.functionMinimum ?? "none");
    let forbidden = 0;
    if (input.paths)
      for (const path of PATHS) if (!input.paths.includes(path)) forbidden |= 1 << strengthOf(path);
    let needs = 0;
    if (input.needs) for (const need of input.needs) needs |= 1 << index(NEEDS, need);
    const key = (((needs << FORBIDDEN_BITS) | forbidden) << shift) | one;
    let demand = this.#known.get(key);
    if (!demand) {
      demand = this.#derive(one, forbidden, needs);
      this.#known.set(key, demand);
    }
    return demand;
  }

  #derive(one: number, forbidden: number, needs: number): Demand | Refusal {
    const fired = this.#rules
      .filter(
        (compiled) =>
          (one & compiled.one) === one &&
          (compiled.forbidden === 0 || (forbidden & compiled.forbidden) !== 0) &&
          (compiled.needs === 0 || (needs & compiled.needs) !== 0),
      )
      .map(({ rule }) => rule);
    const floor = strongest(fired);
    const { exact, pin, prefer } = wishes(fired);
    if (exact && floor && strengthOf(exact.path) < floor.strength)
      return refusal(
        this.table.version,
        "isolation_not_allowed",
        `${capital(exact.rule.why)}, but ${floor.rule.why}`,
        fired.filter(({ effect }) => !("not" in effect)),
      );
    const possible = candidates(floor?.strength ?? 0, exact?.path, pin);
    const excluding = fired.filter(
      ({ effect }) => "not" in effect && possible.includes(effect.not),
    );
    const paths = possible.filter(
      (path) => !excluding.some(({ effect }) => "not" in effect && effect.not === path),
    );
    const telling = fired.filter((rule) => tells(rule, excluding, paths));
    if (paths.length === 0) {
      // What the tenant may not have comes first: nothing that an operator adds to a node would help.
      const decisive =
        excluding.find(({ effect }) => "code" in effect && effect.code === "quota_exceeded") ??
        excluding[0];
      const because = floor && decisive ? `${capital(floor.rule.why)}, but ${decisive.why}` : "";
      return refusal(
        this.table.version,
        decisive && "code" in decisive.effect ? decisive.effect.code : "isolation_unavailable",
        because || capital(decisive?.why ?? "no path is left"),
        telling,
        decisive?.remedy,
      );
    }
    if (prefer !== "cheaper" && paths[0] !== prefer && paths.includes(prefer)) paths.reverse();
    return Object.freeze({
      paths: Object.freeze(paths),
      cheaper: prefer === "cheaper" && paths.length > 1,
      ...explained(this.table.version, telling),
    });
  }
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

const explained = (table: string, rules: readonly PlacementRule[]): Explained => ({
  table,
  reasons: Object.freeze(rules.map(({ why }) => why)),
  rules: Object.freeze(rules.map(({ id }) => id)),
});

const refusal = (
  table: string,
  refused: ErrorCode,
  detail: string,
  telling: readonly PlacementRule[],
  remedy?: string,
): Refusal =>
  Object.freeze({
    refused,
    detail,
    ...(remedy === undefined ? {} : { remedy }),
    ...explained(table, telling),
  });

/** The first of the rules that ask for the most. */
function strongest(
  fired: readonly PlacementRule[],
): { strength: number; rule: PlacementRule } | undefined {
  let found: { strength: number; rule: PlacementRule } | undefined;
  for (const rule of fired) {
    if (!("atLeast" in rule.effect)) continue;
    const strength = strengthOf(rule.effect.atLeast);
    if (!found || strength > found.strength) found = { strength, rule };
  }
  return found;
}

function wishes(fired: readonly PlacementRule[]) {
  let exact: { path: Path; rule: PlacementRule } | undefined;
  let pin: Path | undefined;
  let prefer: Path | "cheaper" = PATHS[0];
  for (const rule of fired) {
    const { effect } = rule;
    if ("exactly" in effect) exact = { path: effect.exactly, rule };
    else if ("pin" in effect) pin = effect.pin;
    else if ("prefer" in effect) prefer = effect.prefer;
  }
  return { exact, pin, prefer };
}

/** A pinned path gives way to the floor, and then only the weakest one that reaches it is meant. */
function candidates(floor: number, exact: Path | undefined, pin: Path | undefined): Path[] {
  if (exact) return [exact];
  if (pin) return [PATHS[Math.max(floor, strengthOf(pin))] as Path];
  return PATHS.slice(floor);
}

/** Whether a rule says something about this decision: not what it rules out where nobody would go, nor notes on another path. */
function tells(
  rule: PlacementRule,
  excluding: readonly PlacementRule[],
  paths: readonly Path[],
): boolean {
  if ("not" in rule.effect) return excluding.includes(rule);
  if ("note" in rule.effect) return paths.includes("microvm");
  return true;
}
