import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { allowed, hostSurface } from "./host-surface.ts";

test("what is counted is what is enforced, and what the documents say", () => {
  const surface = hostSurface("node24");
  const document = readFileSync(join(PROJECT_ROOT, "docs/host-calls.md"), "utf8");
  assert.equal(surface.monitor_calls, Number(/^(\d+) host calls\.$/m.exec(document)?.[1]));
  const container = allowed("runtime/container/seccomp/runner.json", "runner");
  assert.ok(container.has("read") && !container.has("mount") && !container.has("ptrace"));
  assert.ok(surface.monitor_calls < surface.container_calls);
  assert.ok(surface.kernel_calls === null || surface.container_calls < surface.kernel_calls);
  // Node alone is larger; what lies behind links out of the image is not the image's.
  assert.ok(surface.image_bytes > 50e6 && surface.image_bytes < 500e6, String(surface.image_bytes));
  assert.throws(() => allowed("runtime/container/seccomp/runner.json", "absent"), /no list absent/);
});
