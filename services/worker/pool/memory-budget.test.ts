import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryBudget } from "./memory-budget.ts";

test("what yields is kept while there is room, is told when there is less, and comes back late", () => {
  const budget = new MemoryBudget(1000);
  const told: number[] = [];
  const first = budget.reserve(300);
  budget.yields({ each: { memoryMb: 10, most: 20 }, keep: (count) => told.push(count) });
  assert.deepEqual([budget.yieldingMb, told], [200, []]);
  // There is room for all of them beside it.
  const second = budget.reserve(500);
  assert.deepEqual([budget.yieldingMb, told], [200, []]);
  // What yields never stands in a sandbox's way.
  const third = budget.reserve(150);
  assert.deepEqual([budget.yieldingMb, told], [50, [5]]);
  assert.equal(budget.reserve(51), undefined);
  const fourth = budget.reserve(50);
  assert.deepEqual(told, [5, 0]);
  fourth?.release();
  assert.deepEqual([budget.yieldingMb, told], [20, [5, 0, 2]]);
  third?.release();
  assert.deepEqual(told, [5, 0, 2, 10]);
  second?.release();
  first?.release();
  assert.deepEqual([budget.yieldingMb, told], [200, [5, 0, 2, 10, 20]]);
});

test("a small node keeps as many as it has room for from the start", () => {
  const budget = new MemoryBudget(64);
  const told: number[] = [];
  budget.yields({ each: { memoryMb: 5, most: 24 }, keep: (count) => told.push(count) });
  assert.deepEqual([budget.yieldingMb, told], [60, [12]]);
});
