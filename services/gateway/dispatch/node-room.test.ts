import assert from "node:assert/strict";
import { test } from "node:test";
import type { NodeHeartbeat } from "#queue/nodes";
import { heartbeatOf } from "../testkit/heartbeats.ts";
import type { LiveNode } from "./live-nodes.ts";
import { chooseNode, NodeRoom } from "./node-room.ts";

function roomOf(id: string, change: Partial<NodeHeartbeat> = {}, sent = 0): NodeRoom<object> {
  const beat = heartbeatOf(id, { concurrency: 20, processors: 2, ...change });
  const node: LiveNode = {
    beat,
    usable: true,
    kinds: beat.kinds,
    images: [],
    heardMs: 0,
    question: undefined,
    askedMs: 0,
  };
  const room = new NodeRoom<object>(node);
  for (let n = 0; n < sent; n++) room.add({}, `tenant ${n}`);
  room.told();
  return room;
}

const choose = (rooms: NodeRoom<object>[], lastAt?: string): string | undefined =>
  chooseNode(rooms, { tenant: "t", versionId: "ver_1", lastAt })?.node.beat.id;

test("the node where the function is warm is chosen, then one with its snapshot, then the least busy", () => {
  const plain = roomOf("plain");
  const frozen = roomOf("frozen", { snapshotVersions: ["ver_1"] }, 1);
  const warm = roomOf("warm", { warmVersions: ["ver_1"] }, 2);
  assert.equal(choose([plain, frozen, warm]), "warm");
  assert.equal(choose([plain, frozen]), "frozen");
  assert.equal(choose([roomOf("busy", {}, 3), plain]), "plain");
  assert.equal(choose([plain, frozen, warm], "plain"), "plain", "it served the version just now");
});

test("a warm node that has much more to do than another is left alone, and so is one without room", () => {
  assert.equal(choose([roomOf("cold"), roomOf("warm", { warmVersions: ["ver_1"] }, 4)]), "warm");
  assert.equal(choose([roomOf("cold"), roomOf("warm", { warmVersions: ["ver_1"] }, 5)]), "cold");
  const full = roomOf("full", { warmVersions: ["ver_1"], concurrency: 2 }, 2);
  assert.equal(choose([full, roomOf("cold")]), "cold");
  assert.equal(choose([full]), undefined);
});

test("calls of other gateways count, and each gateway fills its share of the places", () => {
  const shared = roomOf("shared", { gateways: 2, invocations: 12 }, 2);
  assert.equal(shared.places, 10);
  assert.equal(shared.load, 6);
  assert.equal(choose([shared, roomOf("other", {}, 10)]), "other");
});

test("no tenant gets the last tenth of a node", () => {
  const room = roomOf("a");
  const calls = Array.from({ length: 18 }, () => ({}));
  for (const call of calls) {
    assert.equal(room.has("flood"), true);
    room.add(call, "flood");
  }
  assert.equal(room.has("flood"), false);
  assert.equal(room.has("quiet"), true);
  room.delete(calls[0] as object, "flood");
  assert.equal(room.has("flood"), true);
  room.delete(calls[0] as object, "flood");
  assert.equal(room.sent.size, 17, "one that has left cannot leave again");
});
