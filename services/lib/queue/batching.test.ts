import assert from "node:assert/strict";
import { test } from "node:test";
import { Batching } from "./batching.ts";

const turn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

/** What was sent, and the means to let each arrive. */
function sending(bounds = { items: 4, bytes: 100 }) {
  const sent: { items: string[]; arrive: () => void; fail: (error: Error) => void }[] = [];
  const refused: string[] = [];
  const batching = new Batching<string>(
    bounds,
    (items) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      sent.push({ items, arrive: resolve, fail: reject });
      return promise;
    },
    (items) => refused.push(...items),
  );
  return { batching, sent, refused, items: () => sent.map(({ items }) => items) };
}

test("one that is alone leaves at once, and the next too once it has arrived", async () => {
  const { batching, sent, items } = sending();
  batching.add("a", 1);
  assert.deepEqual(items(), [["a"]]);
  sent[0]?.arrive();
  await turn();
  batching.add("b", 1);
  assert.deepEqual(items(), [["a"], ["b"]]);
});

test("what comes while another is on its way goes together once that has arrived, with what comes in the same turn", async () => {
  const { batching, sent, items } = sending();
  batching.add("a", 1);
  batching.add("b", 1);
  await turn();
  batching.add("c", 1);
  await turn();
  assert.deepEqual(items(), [["a"]]);
  sent[0]?.arrive();
  await Promise.resolve();
  batching.add("d", 1);
  await turn();
  await turn();
  assert.deepEqual(items(), [["a"], ["b", "c", "d"]]);
});

test("where some were joined, the next waits for the end of its turn, where there may be more", async () => {
  const { batching, sent, items } = sending();
  for (const item of ["a", "b", "c"]) batching.add(item, 1);
  for (const at of [0, 1]) {
    sent[at]?.arrive();
    await turn();
    await turn();
  }
  batching.add("d", 1);
  batching.add("e", 1);
  assert.deepEqual(items(), [["a"], ["b", "c"]]);
  await turn();
  assert.deepEqual(items(), [["a"], ["b", "c"], ["d", "e"]]);
});

test("no batch is beyond its bounds, and all of what waits leaves at once", async () => {
  const { batching, sent, items } = sending();
  batching.add("first", 1);
  for (const [item, bytes] of Object.entries({
    a: 1,
    b: 1,
    c: 1,
    d: 1,
    e: 60,
    f: 40,
    g: 1,
    h: 500,
    i: 1,
  }))
    batching.add(item, bytes);
  sent[0]?.arrive();
  await turn();
  await turn();
  assert.deepEqual(items().slice(1), [["a", "b", "c", "d"], ["e", "f"], ["g"], ["h"], ["i"]]);
});

test("one is taken out until it has left", async () => {
  const { batching, sent, items } = sending();
  for (const item of ["a", "b", "c"]) batching.add(item, 1);
  assert.equal(batching.delete("a"), false, "it has left");
  assert.equal(batching.delete("b"), true);
  assert.equal(batching.delete("b"), false);
  sent[0]?.arrive();
  await turn();
  await turn();
  assert.deepEqual(items(), [["a"], ["c"]]);
  assert.equal(batching.delete("c"), false);
});

test("what gathers behind one that is refused is refused with it; what comes later is tried", async () => {
  const { batching, sent, refused, items } = sending();
  for (const item of ["a", "b", "c"]) batching.add(item, 1);
  sent[0]?.fail(new Error("away"));
  await turn();
  assert.deepEqual(refused, ["b", "c"]);
  batching.add("d", 1);
  assert.deepEqual(items(), [["a"], ["d"]]);
});
