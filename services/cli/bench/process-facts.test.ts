import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { companionsOf, descendantsOf, factsOfProcesses } from "./process-facts.ts";

test("a child and its child are found, with what they cost and the namespaces that are theirs", async () => {
  const script = "echo ready; read line";
  const child = spawn("unshare", ["--uts", "--ipc", "--fork", "sh", "-c", script]);
  const pid = child.pid as number;
  try {
    await once(child.stdout, "data");
    const found = descendantsOf(process.pid, 0);
    assert.equal(found.length, 2);
    assert.equal(found[0], pid);
    assert.deepEqual(descendantsOf(process.pid, pid), []);
    const facts = factsOfProcesses(found);
    assert.deepEqual(facts?.namespaces, ["uts", "ipc"]);
    assert.ok(facts.page_faults > 0 && facts.private_kib > 0 && facts.shared_kib > 0);
    // Both have waited for something.
    assert.ok(facts.context_switches >= 2);
    assert.deepEqual(companionsOf(pid), [], "it is no sandbox of sandboxd's");
  } finally {
    child.stdin.end("\n");
    await once(child, "close");
  }
  assert.equal(factsOfProcesses([pid]), undefined, "it has ended");
  assert.equal(factsOfProcesses([]), undefined);
});
