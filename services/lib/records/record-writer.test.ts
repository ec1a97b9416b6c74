import assert from "node:assert/strict";
import { test } from "node:test";
import type { InvocationRecord, LogEntry } from "#contracts/invocation";
import type { SerializedRecord } from "#contracts/usage";
import { type RecordSink, RecordWriter } from "./record-writer.ts";

const record = (id: string): InvocationRecord => ({
  id,
  tenantId: "ten_1",
  functionId: "fn_1",
  versionId: "ver_1",
  acceptedAtMs: 1,
  finishedAtMs: 2,
  status: "ok",
  placementReasons: [],
  phases: {},
  durationMs: 1,
  billedMs: 1,
  memoryMb: 256,
  requestBytes: 0,
  responseBytes: 0,
  nodeId: "node_1",
});
const entry = (text: string): LogEntry => ({
  tenantId: "ten_1",
  functionId: "fn_1",
  version: 1,
  atMs: 1,
  stream: "stdout",
  text,
});

/** Rows that were taken; `fail` decides what happens to a batch. */
class Rows implements RecordSink {
  readonly records: SerializedRecord[] = [];
  readonly logs: LogEntry[] = [];
  batches = 0;
  fail: (rows: unknown[]) => Error | undefined = () => undefined;
  changed: () => void = () => {};

  async writeRecords(rows: SerializedRecord[]): Promise<void> {
    this.#check(rows);
    this.records.push(...rows);
    this.changed();
  }
  async insertLogs(rows: LogEntry[]): Promise<void> {
    this.#check(rows);
    this.logs.push(...rows);
    this.changed();
  }
  #check(rows: unknown[]): void {
    this.batches++;
    const error = this.fail(rows);
    if (error) throw error;
  }
  async until(condition: () => boolean): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve) => {
      this.changed = () => condition() && resolve();
    });
  }
}

test("rows are written in batches", { timeout: 20_000 }, async () => {
  const rows = new Rows();
  const writer = new RecordWriter({ sink: rows, batchRows: 100, flushMs: 10 });
  for (let i = 0; i < 250; i++) writer.record(record(`inv_${i}`));
  writer.log(entry("a\0b"));
  await rows.until(() => rows.records.length === 250 && rows.logs.length === 1);
  assert.ok(rows.batches <= 6, `${rows.batches} batches`);
  assert.equal(rows.logs[0]?.text, "a\uFFFDb");
  await writer.close(1000);
});

test("an outage loses nothing that fits, and order is kept", { timeout: 20_000 }, async () => {
  const rows = new Rows();
  let down = true;
  rows.fail = () => (down ? new Error("connect ECONNREFUSED") : undefined);
  const failed = Promise.withResolvers<void>();
  const writer = new RecordWriter({ sink: rows, flushMs: 5, onProblem: () => failed.resolve() });
  for (let i = 0; i < 5; i++) writer.record(record(`inv_${i}`));
  writer.log(entry("kept"));
  await failed.promise;
  down = false;
  writer.record(record("inv_5"));
  await rows.until(() => rows.records.length === 6 && rows.logs.length === 1);
  assert.deepEqual(
    rows.records.map((row) => row.id),
    ["inv_0", "inv_1", "inv_2", "inv_3", "inv_4", "inv_5"],
  );
  assert.deepEqual(writer.dropped, { records: 0, logs: 0 });
  await writer.close(1000);
});

test("a row the database refuses costs only itself", { timeout: 20_000 }, async () => {
  const rows = new Rows();
  rows.fail = (batch) =>
    (batch as SerializedRecord[]).some((row) => row.id === "inv_3")
      ? Object.assign(new Error("violates foreign key"), { code: "23503" })
      : undefined;
  const writer = new RecordWriter({ sink: rows, flushMs: 5 });
  for (let i = 0; i < 8; i++) writer.record(record(`inv_${i}`));
  await rows.until(() => rows.records.length === 7);
  assert.deepEqual(writer.dropped, { records: 1, logs: 0 });
  await writer.close(1000);
});

test("what waits is bounded: old logs go first, and all drops are counted", async () => {
  const rows = new Rows();
  rows.fail = () => new Error("away");
  const writer = new RecordWriter({
    sink: rows,
    maxRecords: 100,
    maxLogBytes: 10_000,
    flushMs: 60_000,
  });
  for (let i = 0; i < 150; i++) writer.record(record(`inv_${i}`));
  for (let i = 0; i < 100; i++) writer.log(entry("x".repeat(100)));
  assert.ok(writer.waiting.records <= 100);
  assert.ok(writer.waiting.logs * 300 <= 10_000);
  await writer.close(50);
  assert.deepEqual(writer.dropped, { records: 150, logs: 100 });
});

test("live logs that come while records are being written are published too", {
  timeout: 20_000,
}, async () => {
  const rows = new Rows();
  const heard: string[] = [];
  const writer = new RecordWriter({
    sink: rows,
    flushMs: 1,
    publish: (_, message) => heard.push(...(message as LogEntry[]).map(({ text }) => text)),
  });
  rows.fail = (batch) => {
    // The records are on their way: what is logged now goes into the same batch of logs.
    if (rows.batches === 1) writer.log(entry("meanwhile"));
    assert.equal(batch.length, 1);
    return undefined;
  };
  writer.record(record("inv_1"));
  await rows.until(() => rows.logs.length === 1);
  assert.deepEqual(heard, ["meanwhile"]);
  await writer.close(1000);
});

test("live logs are published once each, by function", { timeout: 20_000 }, async () => {
  const rows = new Rows();
  const heard: [string, LogEntry[]][] = [];
  const writer = new RecordWriter({
    sink: rows,
    flushMs: 5,
    publish: (channel, message) => heard.push([channel, message as LogEntry[]]),
  });
  writer.log(entry("one"));
  writer.log({ ...entry("two"), functionId: "fn_2" });
  writer.log(entry("three"));
  await rows.until(() => rows.logs.length === 3);
  await writer.close(1000);
  assert.deepEqual(
    heard.map(([channel, entries]) => [channel, entries.map((one) => one.text)]),
    [
      ["cloister:logs:fn_1", ["one", "three"]],
      ["cloister:logs:fn_2", ["two"]],
    ],
  );
});
