import assert from "node:assert/strict";
import { test } from "node:test";
import { FairQueue } from "./fair-queue.ts";

const all = (queue: FairQueue<string>): string[] => {
  const order: string[] = [];
  for (let item = queue.take(() => "entitled"); item; item = queue.take(() => "entitled"))
    order.push(item);
  return order;
};

test("tenants take turns, whatever one has waiting; within a tenant it is first come, first served", () => {
  const queue = new FairQueue<string>();
  for (let n = 0; n < 100; n++) queue.add("flood", `f${n}`);
  for (const item of ["q0", "q1"]) queue.add("quiet", item);
  queue.add("late", "l0");
  assert.deepEqual([queue.size, queue.tenants, queue.of("flood")], [103, 3, 100]);
  assert.deepEqual(all(queue).slice(0, 7), ["f0", "q0", "l0", "f1", "q1", "f2", "f3"]);
  assert.deepEqual([queue.size, queue.tenants], [0, 0]);
});

test("who has less than its share comes before who has it; who may not is left where it is", () => {
  const queue = new FairQueue<string>();
  queue.add("a", "a0");
  queue.add("b", "b0");
  queue.add("c", "c0");
  const verdict = { a: "no", b: "may", c: "entitled" } as const;
  const take = () => queue.take((tenant) => verdict[tenant as "a" | "b" | "c"]);
  assert.equal(take(), "c0");
  assert.equal(take(), "b0");
  assert.equal(take(), undefined);
  assert.equal(queue.size, 1);
});

test("the search for one with less than its share is bounded", () => {
  const queue = new FairQueue<string>();
  for (let n = 0; n < 1000; n++) queue.add(`t${n}`, `i${n}`);
  let asked = 0;
  assert.equal(
    queue.take(() => {
      asked++;
      return "may";
    }),
    "i0",
  );
  assert.ok(asked < 100, `${asked} tenants were looked at`);
});

test("what had its turn goes before all of its tenant, and what is taken out is gone", () => {
  const queue = new FairQueue<string>();
  for (const item of ["a2", "a3", "a4"]) queue.add("a", item);
  queue.addFirst("a", ["a0", "a1"]);
  queue.addFirst("b", ["b0"]);
  assert.equal(queue.delete("a", "a3"), true);
  assert.equal(queue.delete("a", "a3"), false);
  assert.equal(queue.delete("b", "a0"), false);
  assert.equal(queue.size, 5);
  assert.deepEqual(all(queue), ["a0", "b0", "a1", "a2", "a4"]);
  queue.add("c", "c0");
  assert.deepEqual(queue.clear(), [["c", ["c0"]]]);
  assert.equal(queue.size, 0);
});
