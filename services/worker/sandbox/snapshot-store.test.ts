import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { SnapshotStore } from "./snapshot-store.ts";

let forgotten: string[];
let lost: string[];
let store: SnapshotStore;

beforeEach(() => {
  forgotten = [];
  lost = [];
  const forget = async (id: string): Promise<void> => void forgotten.push(id);
  store = new SnapshotStore(forget, (key) => lost.push(key), { count: 3, bytes: 1000 });
});

test("what is unused longest goes when there are too many", async () => {
  for (const key of ["a", "b", "c"]) store.add(key, { id: `snap_${key}`, bytes: 10 });
  assert.equal(store.use("a"), "snap_a");
  await store.makeRoom();
  assert.deepEqual([forgotten, lost], [["snap_b"], ["b"]]);
  assert.deepEqual(
    [store.use("a"), store.use("b"), store.use("c")],
    ["snap_a", undefined, "snap_c"],
  );
});

test("room is made for one as large as the largest so far, within a quarter of all", async () => {
  store.add("a", { id: "snap_a", bytes: 500 });
  store.add("b", { id: "snap_b", bytes: 300 });
  await store.makeRoom();
  assert.deepEqual(forgotten, ["snap_a"]);
});

test("one takes the place of another of the same, and is not dropped in its stead", () => {
  store.add("a", { id: "snap_1", bytes: 10 });
  store.add("a", { id: "snap_2", bytes: 10 });
  assert.deepEqual(forgotten, ["snap_1"]);
  assert.equal(store.drop("a", "snap_1"), false);
  assert.equal(store.use("a"), "snap_2");
  assert.equal(store.drop("a", "snap_2"), true);
  assert.deepEqual(forgotten, ["snap_1", "snap_2"]);
  assert.equal(store.size, 0);
});

test("evicting ends when there is none", async () => {
  store.add("a", { id: "snap_a", bytes: 10 });
  assert.equal(await store.evictOne(), true);
  assert.equal(await store.evictOne(), false);
  assert.deepEqual([forgotten, lost], [["snap_a"], ["a"]]);
});
