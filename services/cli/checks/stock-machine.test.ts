import assert from "node:assert/strict";
import { test } from "node:test";
import { batches } from "./stock-machine.ts";

test("the longest test programs have a boot of their own and begin first, the others share one, and none is left out", () => {
  const built = ["walls-0a", "hostile-1b", "life-2c", "programs-3d", "hostile_resets-4e"];
  const tests = built.map((name) => ({ executable: `/target/release/deps/${name}` }));
  const [walls, hostile, life, programs, resets] = tests;
  assert.deepEqual(batches(tests), [[programs], [hostile], [resets], [walls, life]]);
  assert.deepEqual(batches([]), []);
});
