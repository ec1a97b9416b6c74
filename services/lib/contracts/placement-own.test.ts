import assert from "node:assert/strict";
import { test } from "node:test";
import { isolationSchema, pathSchema } from "./function.ts";
import { NEEDS } from "./need-kinds.ts";
import { type DemandInput, decidePlacement } from "./placement.ts";
import { PlacementEngine } from "./placement-engine.ts";
import { extendTable, type OwnTable, ownTableSchema } from "./placement-own.ts";
import { PLACEMENT_TABLE, TIERS } from "./placement-table.ts";

const PATHS = pathSchema.options;
const CONDITIONS: object[] = [
  {},
  ...isolationSchema.options.map((one) => ({ isolation: [one] })),
  ...TIERS.map((one) => ({ tier: [one] })),
  ...[...PATHS, "none"].map((one) => ({ wanted: [one] })),
  ...PATHS.flatMap((one) => [{ minimumIsolation: [one] }, { forbidden: [one] }]),
  ...NEEDS.map((one) => ({ needs: [one] })),
  { runtime: ["node24", "binary"], tier: ["trusted"] },
];
const EFFECTS = PATHS.flatMap((path) => [{ atLeast: path }, { not: path }]);

/** Own tables with each rule there can be of these parts, and each preference, alone and in pairs with one that says the opposite. */
function* everyTable(): Generator<OwnTable> {
  const costs = [
    {},
    { prior: { container: { acquireMs: { cold: 0 }, memoryMb: 0 } }, switchBelow: 1 },
  ];
  for (const when of CONDITIONS)
    for (const effect of EFFECTS)
      for (const prefer of [undefined, "cheaper", ...PATHS])
        for (const cost of costs) {
          const rules = [{ id: "one", when, effect, why: "of its own" }];
          const opposite = { id: "two", effect: { not: "container" }, why: "of its own too" };
          yield ownTableSchema.parse({ version: "x", rules, cost, ...(prefer ? { prefer } : {}) });
          yield ownTableSchema.parse({ version: "x", rules: [...rules, opposite], cost });
        }
}

function* inputs(): Generator<DemandInput> {
  for (const isolation of isolationSchema.options)
    for (const tier of TIERS)
      for (const wanted of [undefined, ...PATHS])
        for (const minimumIsolation of [undefined, "microvm"] as const)
          for (const paths of [undefined, ["container"], ["microvm"]] as const)
            for (const needs of [[], ["subprocess"]] as const)
              for (const runtime of ["node24", "binary"] as const)
                yield { isolation, runtime, tier, wanted, minimumIsolation, paths, needs };
}

test("whatever an own table says, a call runs on a path that the built-in rules allow, or on a stronger one, or on none", () => {
  const builtIn = new PlacementEngine(PLACEMENT_TABLE);
  const all = [...inputs()].map((input) => {
    const paths = (change: Partial<DemandInput>) => {
      const demand = builtIn.demandOf({ ...input, ...change });
      return "refused" in demand ? [] : demand.paths;
    };
    // More isolation than a function asks for is what an own table may ask for.
    const allowed = [...paths({}), ...paths({ minimumIsolation: "microvm" })];
    return { input, allowed: paths({}).length === 0 ? [] : allowed };
  });
  let placed = 0;
  let stricter = 0;
  for (const own of everyTable()) {
    const engine = new PlacementEngine(extendTable(PLACEMENT_TABLE, own));
    for (const { input, allowed } of all) {
      const decided = decidePlacement({ ...input, kinds: PATHS }, engine);
      if ("refused" in decided) {
        if (allowed.length > 0) stricter++;
        continue;
      }
      placed++;
      if (!allowed.includes(decided.path))
        assert.fail(`${JSON.stringify({ own, input, decided, allowed })}`);
    }
  }
  assert.ok(placed > 0 && stricter > 0);
});

test("an own rule is told with its id, and the table with both versions", () => {
  const own = ownTableSchema.parse({
    version: "acme-1",
    rules: [{ id: "all-strong", effect: { atLeast: "microvm" }, why: "we trust nobody" }],
  });
  const engine = new PlacementEngine(extendTable(PLACEMENT_TABLE, own));
  const input = { isolation: "container", runtime: "node24", tier: "trusted" } as const;
  const decided = decidePlacement({ ...input, wanted: undefined, kinds: PATHS }, engine);
  assert.ok("path" in decided);
  assert.equal(decided.path, "microvm");
  assert.equal(decided.table, "1+acme-1");
  assert.ok(decided.rules.includes("all-strong"));
  assert.ok(decided.reasons.includes("we trust nobody"));
});

test("a preference orders what may serve, and nothing else", () => {
  const engine = (prefer: string) =>
    new PlacementEngine(
      extendTable(PLACEMENT_TABLE, ownTableSchema.parse({ version: "x", prefer })),
    );
  const path = (prefer: string, change: Partial<DemandInput> = {}) => {
    const input: DemandInput = {
      isolation: "auto",
      runtime: "node24",
      tier: "trusted",
      wanted: undefined,
      ...change,
    };
    const decided = decidePlacement({ ...input, kinds: PATHS }, engine(prefer));
    return "path" in decided ? decided.path : decided.refused;
  };
  assert.equal(path("microvm"), "microvm");
  assert.equal(path("container"), "container");
  assert.equal(path("container", { tier: "standard" }), "microvm");
  assert.equal(path("microvm", { isolation: "container" }), "container");
  assert.equal(path("microvm", { needs: ["subprocess"] }), "container");
});
