import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { holdMountNamespace } from "./mount-namespace.ts";

test("a mount stays between two programs, is not seen outside, and goes at the end", async () => {
  const folder = mkdtempSync(join(tmpdir(), "cloister-mounts-"));
  const space = await holdMountNamespace();
  const [program = "", ...args] = space.enter;
  try {
    execFileSync(program, [...args, "mount", "-t", "tmpfs", "tmpfs", folder]);
    execFileSync(program, [...args, "touch", join(folder, "inside")]);
    assert.equal(
      execFileSync(program, [...args, "ls", folder], { encoding: "utf8" }).trim(),
      "inside",
    );
    assert.ok(!existsSync(join(folder, "inside")));
    assert.ok(!readFileSync("/proc/mounts", "utf8").includes(folder));
  } finally {
    await space.close();
    rmSync(folder, { recursive: true, force: true });
  }
  assert.throws(() => execFileSync(program, [...args, "true"], { stdio: "ignore" }));
});
