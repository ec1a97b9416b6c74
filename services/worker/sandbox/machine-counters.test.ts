import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { MachineCounters } from "./machine-counters.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-counters-"));
after(() => rmSync(folder, { recursive: true }));

function page(slots: Record<number, bigint>): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes.writeBigUInt64LE(1n, 0);
  for (const [slot, value] of Object.entries(slots))
    bytes.writeBigUInt64LE(value, Number(slot) * 8);
  return bytes;
}

/** Opens a page, and gives what two contents of it make. */
function between(first: Buffer, second: Buffer) {
  const path = join(folder, "page");
  writeFileSync(path, first);
  const counters = MachineCounters.open(path, { "0": "read", "1": "write" });
  assert.ok(counters);
  const before = counters.read();
  // The same file, as its monitor would write it.
  writeFileSync(path, second, { flag: "r+" });
  const work = counters.between(before, counters.read());
  counters.close();
  assert.equal(counters.read(), undefined);
  return work;
}

const ALL_ONES = 2n ** 64n - 1n;

test("what was counted between two readings, by name", () => {
  const work = between(
    page({ 1: 10n, 5: 1_000n, 6: 0n, 33: 5n }),
    page({ 1: 15n, 2: 1n, 5: 2_001_000n, 6: 500_000n, 7: 1n, 32: 2n, 33: 6n, 511: 3n }),
  );
  assert.deepEqual(work, {
    exits: { syscall: 5, fault: 1, interrupted: 0, page_unavailable: 0 },
    syscalls: { read: 2, write: 1, other: 4 },
    guestMs: 2,
    monitorMs: 0.5,
  });
});

test("a page that tells what cannot be is not believed in any part", () => {
  assert.equal(between(page({ 1: 2n }), page({ 1: 1n })), undefined, "back");
  for (const slot of [1, 4, 5, 6, 7, 32, 511]) {
    assert.equal(between(page({}), page({ [slot]: ALL_ONES })), undefined, `slot ${slot}`);
    assert.equal(between(page({}), page({ [slot]: 2n ** 52n })), undefined, `slot ${slot}`);
  }
  const wild = Buffer.alloc(4096, 0xff);
  assert.equal(between(page({}), wild), undefined, "format");
  assert.equal(between(wild, wild), undefined, "format");
});

test("refusals of memory are told of a machine that is gone, too", () => {
  const path = join(folder, "refusals");
  writeFileSync(path, page({ 8: 2n }));
  const counters = MachineCounters.open(path, {});
  assert.ok(counters);
  const before = counters.read();
  assert.equal(counters.refusalsSince(undefined), 2);
  writeFileSync(path, page({ 8: 5n }), { flag: "r+" });
  counters.close();
  assert.equal(counters.refusalsSince(before), 3);
});

test("no file, or one that was cut, is no reading", () => {
  assert.equal(MachineCounters.open(join(folder, "none"), {}), undefined);
  const path = join(folder, "cut");
  writeFileSync(path, page({}));
  const counters = MachineCounters.open(path, {});
  const before = counters?.read();
  assert.ok(before);
  truncateSync(path, 8);
  assert.equal(counters?.read(), undefined);
  assert.equal(counters?.between(before, undefined), undefined);
  counters?.close();
});
