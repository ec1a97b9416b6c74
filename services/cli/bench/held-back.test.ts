import assert from "node:assert/strict";
import { test } from "node:test";
import { statFilesOf, throttledMs } from "./held-back.ts";

test("the account of a control group is found in both versions", () => {
  assert.deepEqual(statFilesOf("4:cpuset:/a\n3:cpu,cpuacct:/b/cell-1\n1:name=systemd:/\n"), [
    "/sys/fs/cgroup/cpu/b/cell-1/cpu.stat",
  ]);
  assert.deepEqual(statFilesOf("2:cpuacct:/no\n1:cpu:/b\n0::/c\n"), [
    "/sys/fs/cgroup/cpu/b/cpu.stat",
    "/sys/fs/cgroup/c/cpu.stat",
  ]);
  assert.deepEqual(statFilesOf("2:cpuacct:/no\n"), []);
});

test("time that was held back is read in the units of each version", () => {
  assert.equal(throttledMs("nr_periods 3\nnr_throttled 1\nthrottled_time 12500000\n"), 12.5);
  assert.equal(throttledMs("usage_usec 9\nthrottled_usec 12500\n"), 12.5);
  assert.equal(throttledMs("usage_usec 9\n"), undefined);
});
