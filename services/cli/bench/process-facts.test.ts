import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { companionsOf, descendantsOf, factsOfProcesses } from "./process-facts.ts";

test("a child and its child are found, with what they cost and the namespaces that are theirs", async () => {
  const script = "echo ready; read line";
  const child = spawn("unshare", ["--uts", "--ipc", "--fork", "sh", "-c", script]);
  const pid = child.pid as number;
  try {
    await once(child.stdout, "data");
    const found = descendantsOf(process.pid, new Set());
    assert.equal(found.length, 2);
    assert.equal(found[0], pid);
    assert.deepEqual(descendantsOf(process.pid, new Set([pid])), []);
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

const PYTHON = "/usr/bin/python3";
const SHARED_KIB = 8192;
const TWO_WITH_THE_SAME_MEMORY = `
import mmap, os, sys
memory = mmap.mmap(-1, ${SHARED_KIB} << 10)
memory[:] = b"x" * len(memory)
child = os.fork()
if child == 0:
    sum(memory[i] for i in range(0, len(memory), 4096))
    print("ready", flush=True)
sys.stdin.readline()
if child: os.wait()
`;

test("memory that a sandbox's processes share is theirs, and counted once, where that is asked for", {
  skip: existsSync(PYTHON) ? false : `${PYTHON} is not installed`,
}, async () => {
  const child = spawn(PYTHON, ["-c", TWO_WITH_THE_SAME_MEMORY]);
  try {
    await once(child.stdout, "data");
    const pids = descendantsOf(process.pid, new Set());
    assert.equal(pids.length, 2);
    const [files, own] = [factsOfProcesses(pids), factsOfProcesses(pids, "own")];
    assert.ok(files && own);
    const [more, less] = [own.private_kib - files.private_kib, files.shared_kib - own.shared_kib];
    assert.ok(more >= SHARED_KIB && more < 1.5 * SHARED_KIB, `${more} KiB more are private`);
    assert.ok(less >= 2 * SHARED_KIB && less < 3 * SHARED_KIB, `${less} KiB fewer are shared`);
  } finally {
    child.stdin.end("\n\n");
    await once(child, "close");
  }
});
