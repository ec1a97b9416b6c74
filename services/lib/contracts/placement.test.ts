import assert from "node:assert/strict";
import { test } from "node:test";
import { isolationSchema, type Path, pathSchema, RUNTIMES } from "./function.ts";
import { NEEDS, type Need } from "./need-kinds.ts";
import {
  type DemandInput,
  decidePlacement,
  demandOf,
  type NodeState,
  type PlacementInput,
} from "./placement.ts";
import { DECISION_RULES } from "./placement-own.ts";
import { type Cost, PLACEMENT_TABLE, TIERS } from "./placement-table.ts";

const PATHS = pathSchema.options;
const MAYBE_PATH = [undefined, ...PATHS];
const strength = (path: Path): number => (path === "microvm" ? 1 : 0);
const subsets = <T>(all: readonly T[]): T[][] =>
  Array.from({ length: 2 ** all.length }, (_, bits) =>
    all.filter((_one, at) => (bits >> at) % 2 === 1),
  );
const IDS = new Set<string>([...PLACEMENT_TABLE.rules.map(({ id }) => id), ...DECISION_RULES]);

/** Every input there is: what the rules look at is finite. */
function* everyInput(runtimes: readonly (typeof RUNTIMES)[number][]): Generator<DemandInput> {
  for (const isolation of isolationSchema.options)
    for (const runtime of runtimes)
      for (const tier of TIERS)
        for (const wanted of MAYBE_PATH)
          for (const minimumIsolation of MAYBE_PATH)
            for (const functionMinimum of MAYBE_PATH)
              for (const paths of [undefined, ...subsets(PATHS)])
                for (const needs of subsets(NEEDS))
                  yield {
                    ...{ isolation, runtime, tier, wanted, minimumIsolation, functionMinimum },
                    ...{ paths, needs },
                  };
}

/** The least that each demand asks for, told without the rules. */
const leastOf = (input: DemandInput): number =>
  Math.max(
    0,
    ...[
      input.isolation === "microvm",
      input.wanted === "microvm",
      input.minimumIsolation === "microvm",
      input.functionMinimum === "microvm",
      input.tier === "untrusted",
      input.isolation === "auto" && input.tier === "standard",
      input.paths?.includes("container") === false,
    ].map(Number),
  );

/** Whether a path may serve an input, told without the rules. */
function fits(path: Path, input: DemandInput): boolean {
  const { isolation, wanted, runtime, needs = [], paths } = input;
  if (strength(path) < leastOf(input)) return false;
  if (wanted === "container" && path !== "container") return false;
  if (isolation === "container" && strength(path) > leastOf(input)) return false;
  if (paths && !paths.includes(path)) return false;
  if (needs.includes("egress")) return false;
  if (path === "container") return true;
  if (runtime === "binary") return false;
  const named = isolation === "microvm" || wanted === "microvm";
  return named || !needs.includes("subprocess");
}

const told = (decided: { reasons: readonly string[]; rules: readonly string[] }): boolean =>
  decided.reasons.length > 0 &&
  decided.reasons.length === decided.rules.length &&
  decided.reasons.every((reason) => reason !== "") &&
  decided.rules.every((rule) => IDS.has(rule));

const show = (input: object): string => JSON.stringify(input);

test("over the whole input space: never weaker than any demand, refused only when no path fits, always told why", () => {
  let inputs = 0;
  let refusals = 0;
  for (const input of everyInput(RUNTIMES)) {
    inputs++;
    const demand = demandOf(input);
    const fitting = PATHS.filter((path) => fits(path, input));
    if (!told(demand)) assert.fail(`no reasons for ${show(input)}: ${show(demand)}`);
    if ("refused" in demand) {
      refusals++;
      if (fitting.length > 0) assert.fail(`refused ${show(input)}: ${show(demand)}`);
    } else if ([...demand.paths].sort().join() !== fitting.sort().join())
      assert.fail(`${show(input)} got ${show(demand)} where ${show(fitting)} fit`);
  }
  assert.equal(inputs, 3 * 6 * 3 * 3 * 3 * 3 * 5 * 16);
  assert.ok(refusals > 0 && refusals < inputs);
});

/** Each demand that can be added to an input that does not have it yet. */
function* withOneMore(input: DemandInput): Generator<DemandInput> {
  if (input.isolation !== "microvm") yield { ...input, isolation: "microvm" };
  if (input.wanted === undefined) yield { ...input, wanted: "microvm" };
  if (input.minimumIsolation !== "microvm") yield { ...input, minimumIsolation: "microvm" };
  if (input.functionMinimum !== "microvm") yield { ...input, functionMinimum: "microvm" };
  if (input.tier === "trusted") yield { ...input, tier: "standard" };
  if (input.tier !== "untrusted") yield { ...input, tier: "untrusted" };
  if (!input.paths || input.paths.includes("container")) yield { ...input, paths: ["microvm"] };
}

test("a demand more never makes a path weaker", () => {
  let compared = 0;
  for (const input of everyInput(["node24", "binary"])) {
    const before = demandOf(input);
    if ("refused" in before) continue;
    const least = Math.min(...before.paths.map(strength));
    for (const more of withOneMore(input)) {
      const after = demandOf(more);
      compared++;
      if ("paths" in after && after.paths.some((path) => strength(path) < least))
        assert.fail(`${show(input)} has ${show(before.paths)}, ${show(more)} ${show(after.paths)}`);
    }
  }
  assert.ok(compared > 0);
});

const CHEAP: Cost = { acquireMs: 1, memoryMb: 1 };
const DEAR: Cost = { acquireMs: 1000, memoryMb: 1000 };

/** Every state of a node, as far as it matters: what it makes, what is warm, which path is the dearer, which was the last. */
function* everyNode(): Generator<NodeState> {
  const starts = [
    { start: "cold", ready: false },
    { start: "warm", ready: true },
  ] as const;
  for (const kinds of [undefined, ...subsets(PATHS)])
    for (const container of starts)
      for (const microvm of starts)
        for (const dear of PATHS)
          for (const last of MAYBE_PATH) {
            const states = { container, microvm };
            yield {
              kinds,
              last,
              stateOf: (path) => states[path],
              costOf: (path) => (path === dear ? DEAR : CHEAP),
            };
          }
}

test("whatever a node has, a call runs on a path that its demands allow and the node offers, or is refused", () => {
  const nodes = [...everyNode()];
  for (const demands of everyInput(["node24", "binary"])) {
    const fitting = PATHS.filter((path) => fits(path, demands));
    for (const node of nodes) {
      const decided = decidePlacement({ ...demands, ...node });
      if (!told(decided)) assert.fail(`no reasons for ${show(demands)}: ${show(decided)}`);
      const possible = fitting.filter((path) => node.kinds?.includes(path));
      if ("refused" in decided ? possible.length > 0 : !possible.includes(decided.path))
        assert.fail(`${show(demands)} on ${show(node)} got ${show(decided)}`);
    }
  }
});

const INPUT: PlacementInput = {
  isolation: "auto",
  runtime: "node24",
  wanted: undefined,
  tier: "trusted",
  kinds: ["container", "microvm"],
};

test("each refusal has the code of its cause, and a remedy where the rule knows one", () => {
  const refusal = (change: Partial<PlacementInput>) => {
    const decided = decidePlacement({ ...INPUT, ...change });
    assert.ok("refused" in decided, show(change));
    return decided;
  };
  const only = { kinds: ["container"] };
  assert.equal(refusal({ ...only, tier: "standard" }).refused, "isolation_unavailable");
  assert.equal(refusal({ ...only, wanted: "microvm" }).refused, "isolation_unavailable");
  assert.equal(refusal({ kinds: undefined }).refused, "sandbox_failed");
  const weaker = refusal({ isolation: "microvm", wanted: "container" });
  assert.equal(weaker.refused, "isolation_not_allowed");
  assert.equal(
    weaker.detail,
    "The caller asks for a container, but the function asks for a micro-VM",
  );
  const unpaid = refusal({ isolation: "microvm", paths: ["container"] });
  assert.equal(unpaid.refused, "quota_exceeded");
  assert.match(unpaid.remedy ?? "", /quota/);
  assert.equal(refusal({ paths: [] }).refused, "quota_exceeded");
  const needs: Need[] = ["subprocess"];
  const forking = refusal({ tier: "standard", needs });
  assert.equal(forking.refused, "isolation_unavailable");
  assert.match(forking.detail, /starts other programs/);
  assert.match(forking.remedy ?? "", /--isolation microvm/);
  assert.ok(forking.rules.includes("need-subprocess"));
  assert.equal(
    refusal({ isolation: "microvm", runtime: "binary" }).refused,
    "isolation_unavailable",
  );
});

test("a need that one path cannot serve leads a trusted tenant to the other", () => {
  const decided = decidePlacement({ ...INPUT, needs: ["subprocess"] });
  assert.equal("path" in decided && decided.path, "container");
  assert.ok(decided.rules.includes("need-subprocess"));
});

test("who names the micro-VM gets it, with a note on what it refuses", () => {
  for (const change of [{ isolation: "microvm" }, { wanted: "microvm" }] as const) {
    const decided = decidePlacement({ ...INPUT, ...change, needs: ["subprocess"] });
    assert.equal("path" in decided && decided.path, "microvm");
    assert.ok(decided.rules.some((rule) => rule.startsWith("note-subprocess")));
  }
});

test("between paths that may serve, costs decide: a warm one, else the cheaper, but not for a little", () => {
  const decide = (container: number, microvm: number, last?: Path, warm?: Path) => {
    const acquireMs = { container, microvm };
    const decided = decidePlacement({
      ...INPUT,
      last,
      stateOf: (path) =>
        path === warm ? { start: "warm", ready: true } : { start: "cold", ready: false },
      costOf: (path) => ({ acquireMs: acquireMs[path], memoryMb: 0 }),
    });
    assert.ok("path" in decided && decided.byCost);
    return [decided.path, decided.rules.at(-1), decided.start];
  };
  assert.deepEqual(decide(10, 5), ["microvm", "cost-cheaper", "cold"]);
  assert.deepEqual(decide(5, 10), ["container", "cost-cheaper", "cold"]);
  assert.deepEqual(decide(10, 8, "container"), ["container", "cost-stays", "cold"]);
  assert.deepEqual(decide(10, 8, "microvm"), ["microvm", "cost-cheaper", "cold"]);
  assert.deepEqual(decide(10, 7, "container"), ["microvm", "cost-cheaper", "cold"]);
  assert.deepEqual(decide(10, 1, undefined, "container"), ["container", "cost-ready", "warm"]);
});

test("what no schema lets through is no input either", () => {
  assert.throws(() => demandOf({ ...INPUT, tier: "root" as never }), /knows no "root"/);
  assert.throws(() => demandOf({ ...INPUT, wanted: "process" as never }), /knows no "process"/);
});
