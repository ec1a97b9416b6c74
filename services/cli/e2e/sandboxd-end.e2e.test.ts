import assert from "node:assert/strict";
import { test } from "node:test";
import { startTimeOf, waitGone } from "#embedded/process-life";
import { fromSnapshot } from "../bench/from-snapshot.ts";
import { HELLO, layGround } from "../bench/ground.ts";

/** Ending takes a moment; a busy machine takes its time, ms. */
const BOUND_MS = 60_000;
const TURNS = 4;

test("told to end while micro-VMs are made ready, sandboxd ends them and itself", {
  timeout: 300_000,
}, async () => {
  for (let turn = 0; turn < TURNS; turn++) {
    const ground = await layGround(HELLO.node24);
    try {
      const snapshot = fromSnapshot(ground, "function");
      await snapshot.ready();
      // For each that is asked for others are made, which are not ready yet when it is there.
      await Promise.all([snapshot.launch(), snapshot.launch(), snapshot.launch()]);
      const { pid } = ground.sandboxd;
      const startTime = startTimeOf(pid);
      assert.ok(startTime);
      process.kill(pid, "SIGTERM");
      assert.ok(await waitGone(pid, startTime, BOUND_MS), `turn ${turn}: it serves on`);
    } finally {
      await ground.close();
    }
  }
});
