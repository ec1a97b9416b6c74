import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { PLACEMENT_TABLE } from "#contracts/placement-table";
import { readPlacementTable } from "./placement-rules.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-rules-"));
after(() => rmSync(folder, { recursive: true }));

function read(content: unknown) {
  const file = join(folder, "rules.json");
  writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
  return readPlacementTable(file);
}

test("without a file the built-in table holds", () => {
  assert.equal(readPlacementTable(undefined), PLACEMENT_TABLE);
});

test("a file adds rules, a preference and costs", () => {
  const table = read({
    version: "acme-1",
    rules: [
      {
        id: "no-old-node",
        when: { runtime: ["node20"] },
        effect: { not: "container" },
        why: "node20 is old",
      },
    ],
    prefer: "microvm",
    cost: { prior: { microvm: { acquireMs: { cold: 1 }, memoryMb: 2 } }, msPerMb: 0 },
  });
  assert.equal(table.version, `${PLACEMENT_TABLE.version}+acme-1`);
  assert.deepEqual(
    table.rules.slice(0, PLACEMENT_TABLE.rules.length),
    PLACEMENT_TABLE.rules,
    "the built-in rules stay",
  );
  assert.deepEqual(
    table.rules.slice(PLACEMENT_TABLE.rules.length).map(({ id }) => id),
    ["no-old-node", "own-preference"],
  );
  assert.deepEqual(table.cost.prior.microvm, { acquireMs: { cold: 1 }, memoryMb: 2 });
  assert.deepEqual(table.cost.prior.container, PLACEMENT_TABLE.cost.prior.container);
  assert.equal(table.cost.msPerMb, 0);
});

const rule = { id: "r", effect: { atLeast: "microvm" }, why: "because" };
const BAD: [string, unknown, RegExp][] = [
  ["no JSON", "{", /is no JSON/],
  ["no version", {}, /version: /],
  ["an unknown field", { version: "1", rule: [] }, /Unrecognized key: "rule"/],
  [
    "an effect that could weaken",
    { version: "1", rules: [{ ...rule, effect: { pin: "container" } }] },
    /rules\.0\.effect/,
  ],
  [
    "two effects",
    { version: "1", rules: [{ ...rule, effect: { atLeast: "microvm", pin: "container" } }] },
    /rules\.0\.effect/,
  ],
  [
    "a path there is not",
    { version: "1", rules: [{ ...rule, effect: { atLeast: "process" } }] },
    /rules\.0\.effect/,
  ],
  [
    "a condition there is not",
    { version: "1", rules: [{ ...rule, when: { tiers: ["trusted"] } }] },
    /rules\.0\.when: Unrecognized key/,
  ],
  [
    "a condition that never holds",
    { version: "1", rules: [{ ...rule, when: { tier: [] } }] },
    /rules\.0\.when\.tier/,
  ],
  ["an id twice", { version: "1", rules: [rule, rule] }, /a rule r already/],
  [
    "a built-in rule in other words",
    { version: "1", rules: [{ ...rule, id: "tenant-untrusted" }] },
    /a rule tenant-untrusted already/,
  ],
  ["a cost below nothing", { version: "1", cost: { msPerMb: -1 } }, /cost\.msPerMb/],
];
for (const [name, content, message] of BAD)
  test(`${name} is refused with a sentence that says so`, () => {
    assert.throws(() => read(content), message);
    assert.throws(() => read(content), /CLOISTER_PLACEMENT_RULES \(.*rules\.json\)/);
  });

test("a file that is not there is no reason to start without it", () => {
  assert.throws(() => readPlacementTable(join(folder, "none.json")), /ENOENT/);
});
