import type { Path, StartKind } from "./function.ts";
import {
  type Demand,
  type DemandInput,
  type Explained,
  named,
  PlacementEngine,
  type Refusal,
} from "./placement-engine.ts";
import {
  type Cost,
  type CostRules,
  PLACEMENT_TABLE,
  priorOf,
  type Tier,
} from "./placement-table.ts";

export type { Need } from "./need-kinds.ts";
export type { Demand, DemandInput, Refusal } from "./placement-engine.ts";
export type { Tier } from "./placement-table.ts";

/** What one path of a node has for a function now. */
export interface PathState {
  /** How a call would start. */
  start: StartKind;
  /** A sandbox stands open: the call would wait for nothing. */
  ready: boolean;
}

/** What a tenant may, whatever its functions ask for. */
export interface TenantPolicy {
  tier: Tier;
  minimumIsolation?: Path | null | undefined;
  paths?: readonly Path[] | null | undefined;
}

/** A node, as far as placement looks at it. */
export interface NodeState {
  /** What can be made, as sandboxd says; undefined while it cannot be reached. */
  kinds: readonly string[] | undefined;
  stateOf?: (path: Path) => PathState;
  /** What a start is expected to cost, by what was observed; asked where costs decide. The table's prior when absent. */
  costOf?: (path: Path, start: StartKind) => Cost;
  /** The path that was last chosen for this function by cost. */
  last?: Path | undefined;
}

export interface PlacementInput extends DemandInput, NodeState {}

export interface Placement extends Explained {
  path: Path;
  /** How the call is expected to start; absent when the node's pool was not asked. */
  start?: StartKind;
  /** Whether costs decided between several paths. */
  byCost: boolean;
}

const BUILT_IN = new PlacementEngine(PLACEMENT_TABLE);

/**
 * Which paths may serve a call, whichever node it comes to, in order of preference; or why none may. Stronger isolation than is asked for is
 * possible, weaker never. The gateway asks before it queues, the worker again before it runs.
 */
export const demandOf = (input: DemandInput, engine = BUILT_IN): Demand | Refusal =>
  engine.demandOf(input);

/**
 * Which path an invocation runs on at a node, and why. When the node has none of the paths that may serve it, it is refused; no other is
 * looked for.
 */
export function decidePlacement(input: PlacementInput, engine = BUILT_IN): Placement | Refusal {
  const demand = engine.demandOf(input);
  if ("refused" in demand) return demand;
  const { kinds } = input;
  if (!kinds)
    return refuse(
      demand,
      "sandbox_failed",
      "node-unreachable",
      "sandboxd cannot be reached; it may be starting again",
    );
  const [first, second] = demand.paths as [Path, Path?];
  const has = (path: Path | undefined): path is Path => path !== undefined && kinds.includes(path);
  if (has(first) && has(second) && demand.cheaper) return cheaper(demand, input, engine.table.cost);
  const path = has(first) ? first : has(second) ? second : undefined;
  if (path === undefined)
    return refuse(
      demand,
      "isolation_unavailable",
      "node-lacks",
      `This needs a ${demand.paths.map(named).join(" or a ")}, and this node offers ${kinds.join(", ") || "nothing"}`,
    );
  const start = input.stateOf?.(path).start;
  return {
    path,
    ...(start === undefined ? {} : { start }),
    table: demand.table,
    byCost: false,
    reasons: [...demand.reasons, `this node offers ${path}`],
    rules: [...demand.rules, "node-offers"],
  };
}

function refuse(
  demand: Demand,
  refused: Refusal["refused"],
  rule: string,
  detail: string,
): Refusal {
  return {
    refused,
    detail,
    table: demand.table,
    reasons: [...demand.reasons, detail],
    rules: [...demand.rules, rule],
  };
}

/** ms that a start is worth, with what it holds. */
const priceOf = ({ acquireMs, memoryMb }: Cost, { msPerMb }: CostRules): number =>
  acquireMs + memoryMb * msPerMb;

/** Between paths that all may serve the call: a warm sandbox costs nothing, else the cheaper one, and the last one while it is not much dearer. */
function cheaper(
  demand: Demand,
  { stateOf, costOf, last }: NodeState,
  rules: CostRules,
): Placement {
  const chosen = (
    path: Path,
    start: StartKind | undefined,
    rule: string,
    why: string,
  ): Placement => ({
    path,
    ...(start === undefined ? {} : { start }),
    table: demand.table,
    byCost: true,
    reasons: [...demand.reasons, why],
    rules: [...demand.rules, rule],
  });
  // The last one first: while it is ready nothing else need be asked.
  const order =
    last !== undefined && demand.paths[1] === last ? [...demand.paths].reverse() : demand.paths;
  const starts = new Map<Path, StartKind>();
  for (const path of order) {
    const state = stateOf?.(path);
    if (state?.ready) return chosen(path, state.start, "cost-ready", READY[path]);
    if (state) starts.set(path, state.start);
  }
  const cost = (path: Path): Cost => {
    const start = starts.get(path) ?? "cold";
    return costOf?.(path, start) ?? priorOf(rules, path, start);
  };
  const ways = demand.paths
    .map((path) => ({ path, price: priceOf(cost(path), rules) }))
    .sort((a, b) => a.price - b.price);
  const [best, other] = ways as [(typeof ways)[number], (typeof ways)[number]];
  const costs = `a ${named(best.path)} costs ${shown(best.price)} now and a ${named(other.path)} ${shown(other.price)}`;
  if (other.path === last && best.price >= other.price * rules.switchBelow)
    return chosen(
      last,
      starts.get(last),
      "cost-stays",
      `${costs}: too little to leave the ${named(last)} for`,
    );
  return chosen(best.path, starts.get(best.path), "cost-cheaper", costs);
}

const READY: Record<Path, string> = {
  container: "a container of it is ready",
  microvm: "a micro-VM of it is ready",
};

const shown = (price: number): string => `${price.toFixed(1)} ms`;
