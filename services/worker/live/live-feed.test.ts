import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { InvocationRecord } from "#contracts/invocation";
import { type LiveBatch, liveBatchSchema, MOST_GLANCES, MOST_SUMS } from "#contracts/live";
import { LiveFeed } from "./live-feed.ts";

const POOL = { busy: 1, warm: 2, pooled: 0, prepared: 3, starting: 0, waiting: 0 };

function feed(): { live: LiveFeed; told: LiveBatch[] } {
  const told: LiveBatch[] = [];
  const live = new LiveFeed({
    nodeId: "node_test",
    pool: () => POOL,
    nameOf: (id) => (id === "ver_gone" ? undefined : { name: "hello", version: 3 }),
    publish: (batch) => told.push(liveBatchSchema.parse(batch)),
  });
  after(() => live.stop());
  return { live, told };
}

const record = (change: Partial<InvocationRecord> = {}): InvocationRecord => ({
  ...{
    id: "inv_1",
    tenantId: "ten_1",
    functionId: "fn_1",
    versionId: "ver_1",
    nodeId: "node_test",
  },
  ...{ acceptedAtMs: 1, finishedAtMs: 5, status: "ok", path: "microvm", start: "restored" },
  ...{ placementReasons: [], phases: { queue_ms: 1, acquire_ms: 2, handler_ms: 3 } },
  ...{ durationMs: 4, billedMs: 4, memoryMb: 256, requestBytes: 0, responseBytes: 0 },
  ...change,
});

test("nothing is told, or kept, while nobody watches", () => {
  const { live, told } = feed();
  live.saw(record());
  assert.equal(told.length, 0);
  live.watched(1000);
  assert.equal(told.length, 1);
  assert.deepEqual([told[0]?.sums, told[0]?.calls, told[0]?.pool], [[], [], POOL]);
});

test("a call is told by its path and start, with its exits", () => {
  const { live, told } = feed();
  const exits = { syscall: 5, fault: 1, interrupted: 0, page_unavailable: 0 };
  live.watched(1000);
  live.saw(record({ exits }));
  live.saw(
    record({ exits, status: "function_error", errorCode: "function_error", versionId: "ver_gone" }),
  );
  live.saw(record({ path: "container", start: "warm" }));
  live.watched(1000);
  const [, batch] = told;
  assert.deepEqual(batch?.sums, [
    {
      ...{ tenantId: "ten_1", path: "microvm", start: "restored", calls: 2, failures: 1 },
      exits: { syscall: 10, fault: 2, interrupted: 0, page_unavailable: 0 },
    },
    { tenantId: "ten_1", path: "container", start: "warm", calls: 1, failures: 0 },
  ]);
  assert.deepEqual(batch?.calls[0], {
    ...{ id: "inv_1", tenantId: "ten_1", status: "ok", durationMs: 4, atMs: 5 },
    ...{ function: "hello", version: 3, path: "microvm", start: "restored" },
    ...{ queueMs: 1, bootMs: 2, handlerMs: 3 },
  });
  assert.equal(batch?.calls[1]?.function, undefined);
  live.watched(1000);
  assert.deepEqual([told[2]?.sums, told[2]?.calls], [[], []]);
});

test("a flood is summed whole, told in a bounded sample, and leaves room for others", () => {
  const { live, told } = feed();
  live.watched(1000);
  for (let n = 0; n < 5000; n++) live.saw(record({ tenantId: "ten_flood" }));
  live.saw(record({ tenantId: "ten_quiet", start: "warm" }));
  live.watched(1000);
  const [, batch] = told;
  assert.deepEqual(
    batch?.sums.map(({ tenantId, calls }) => [tenantId, calls]),
    [
      ["ten_flood", 5000],
      ["ten_quiet", 1],
    ],
  );
  assert.ok(batch.calls.length <= MOST_GLANCES);
  assert.ok(batch.calls.some(({ tenantId }) => tenantId === "ten_quiet"));
  for (let n = 0; n < MOST_SUMS + 100; n++) live.saw(record({ tenantId: `ten_${n}` }));
  live.watched(1000);
  assert.equal(told[2]?.sums.length, MOST_SUMS);
  assert.equal(told[2]?.uncounted, 100);
  assert.ok(JSON.stringify(told[2]).length < 100_000);
});
