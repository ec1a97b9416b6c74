import assert from "node:assert/strict";
import { test } from "node:test";
import type { NodeHeartbeat } from "#queue/nodes";
import { heartbeatOf } from "../testkit/heartbeats.ts";
import { LiveNodes } from "./live-nodes.ts";

function heard() {
  const events: string[] = [];
  const asked: { id: string; question: string }[] = [];
  const stored: { nodes: NodeHeartbeat[] | Error } = { nodes: [] };
  const nodes = new LiveNodes({
    read: async () => {
      if (stored.nodes instanceof Error) throw stored.nodes;
      return stored.nodes;
    },
    ask: (id, question) => asked.push({ id, question }),
    changed: () => events.push("changed"),
    lost: (id) => events.push(`lost ${id}`),
    left: (id) => events.push(`left ${id}`),
    told: ({ beat }) => events.push(`told ${beat.id}`),
    onProblem: (error) => events.push(error.message),
  });
  /** What happened since it was asked last. */
  const news = (): string[] => events.splice(0);
  let atMs = 1;
  const beat = (id: string, change: Partial<NodeHeartbeat> = {}, answers?: string): void =>
    nodes.hear({ node: heartbeatOf(id, { atMs: atMs++, ...change }), answers });
  return { nodes, asked, stored, news, beat };
}

test("a node that tells of itself is there; numbers alone change nothing, abilities do", () => {
  const { nodes, news, beat } = heard();
  beat("a");
  assert.deepEqual(news(), ["told a", "changed"]);
  assert.equal(nodes.get("a")?.usable, true);
  beat("a", { invocations: 5 });
  assert.deepEqual(news(), ["told a"]);
  beat("a", { kinds: ["container"] });
  assert.deepEqual(news(), ["told a", "changed"]);
  beat("a", { atMs: 0, kinds: ["microvm"] });
  assert.deepEqual(news(), [], "an older word than the last");
  nodes.hear({ node: { id: "b" } });
  assert.deepEqual(news(), ["A message about nodes cannot be read"]);
  nodes.close();
});

test("without its sandboxd, and while it drains, a node gets nothing, and what it can do is remembered", () => {
  const { nodes, news, beat } = heard();
  beat("a");
  news();
  beat("a", { sandboxd: false, kinds: [], images: {} });
  assert.deepEqual(news(), ["told a", "lost a", "changed"]);
  assert.deepEqual(nodes.get("a")?.kinds, ["container", "microvm"]);
  assert.ok(nodes.awaited(({ kinds }) => kinds.includes("microvm")) > 0);
  assert.equal(
    nodes.awaited(({ kinds }) => kinds.includes("another")),
    0,
  );
  beat("a");
  assert.deepEqual(news(), ["told a", "changed"]);
  beat("a", { draining: true });
  assert.deepEqual(news(), ["told a", "lost a", "changed"]);
  beat("b", { draining: true });
  assert.deepEqual(news(), [], "one that is met while it drains is none");
  nodes.hear({ gone: "a" });
  assert.deepEqual(news(), ["lost a", "left a", "changed"]);
  assert.ok(nodes.awaited(() => true) > 0, "the next worker of that node");
  nodes.close();
});

test("a node whose connection broke is asked, and only its answer counts", () => {
  const { nodes, asked, news, beat } = heard();
  beat("a");
  news();
  nodes.suspect("a");
  assert.deepEqual(news(), ["lost a", "changed"]);
  assert.equal(asked.length, 1);
  beat("a");
  assert.deepEqual(news(), ["told a"], "it may have been on its way when it died");
  assert.equal(nodes.get("a")?.usable, false);
  beat("a", {}, asked[0]?.question);
  assert.deepEqual(news(), ["told a", "changed"]);
  nodes.suspect("stranger");
  assert.equal(asked.length, 1);
  nodes.close();
});

test("a silent node is given up only when Redis has nothing of it either", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let nowMs = 1000;
  t.mock.method(performance, "now", () => nowMs);
  const { nodes, stored, news, beat } = heard();
  const pass = async (ms: number): Promise<void> => {
    nowMs += ms;
    t.mock.timers.tick(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  beat("a");
  beat("b");
  news();
  stored.nodes = new Error("Redis is away");
  await pass(10_000);
  assert.deepEqual(news(), ["Redis is away"]);
  assert.equal(nodes.size, 2, "nothing can be told");
  stored.nodes = [heartbeatOf("b", { atMs: 100 })];
  await pass(5000);
  assert.deepEqual(news(), ["told b", "lost a", "left a", "changed"]);
  assert.equal(nodes.size, 1);
  assert.ok(nodes.awaited(() => true) > 0);
  beat("b", { atMs: 101 });
  news();
  await pass(9000);
  beat("b", { atMs: 102 });
  assert.equal(nodes.awaited(() => true) > 0, true);
  await pass(1001);
  assert.equal(
    nodes.awaited(() => true),
    0,
    "a has been gone for too long",
  );
  assert.deepEqual(news(), ["told b"]);
  nodes.close();
});

test("after an outage silence until then means nothing", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let nowMs = 1000;
  t.mock.method(performance, "now", () => nowMs);
  const { nodes, news, beat } = heard();
  beat("a");
  news();
  nowMs += 60_000;
  nodes.reconnected();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(news(), []);
  assert.equal(nodes.size, 1);
  nowMs += 10_000;
  t.mock.timers.tick(10_000);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(news(), ["lost a", "left a", "changed"]);
  nodes.close();
});

test("before any node was ever heard of, the first is waited for", () => {
  const { nodes, beat } = heard();
  assert.ok(nodes.awaited(() => false) > 0);
  beat("a");
  assert.equal(
    nodes.awaited(() => false),
    0,
  );
  nodes.close();
});
