import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { lifecycleOf } from "./lifecycle.mjs";
import { Rehearsal } from "./rehearsal.mjs";
import { renew } from "./renewal.mjs";

const V8 = Number.parseInt(process.versions.v8, 10);
/** V8 12 and later say by these when a function is compiled, and when for good. */
const COUNTS_CALLS = V8 >= 12;
/** V8 13 does that by itself. An earlier one that is told to when it runs has nothing to do it with, and crashes. */
const COMPILES_SPARKPLUG_BESIDE = V8 >= 13;
/**
 * For a rehearsal; V8's defaults stand on the right. They are put back because node's own modules come compiled for these flags.
 *
 * Code that is not compiled for good counts each call down in a cell of its function's. These cells lie apart from each other: every clone would
 * write to a page for each, and own it. Nothing is compiled or swept beside the program: what was half done when it is frozen, each clone would do to its end, and
 * own another quarter of a MiB to two for it.
 */
const REHEARSING = [
  ["--retain-maps-for-n-gc=1000", "--retain-maps-for-n-gc=2"],
  ["--no-flush-bytecode", "--flush-bytecode"],
  ["--no-concurrent-recompilation", "--concurrent-recompilation"],
  ["--no-parallel-scavenge", "--parallel-scavenge"],
  ["--no-concurrent-sweeping", "--concurrent-sweeping"],
  ["--no-concurrent-array-buffer-sweeping", "--concurrent-array-buffer-sweeping"],
  ...(COMPILES_SPARKPLUG_BESIDE ? [["--no-concurrent-sparkplug", "--concurrent-sparkplug"]] : []),
  ...(COUNTS_CALLS
    ? [
        ["--invocation-count-for-maglev=50", "--invocation-count-for-maglev=400"],
        ["--invocation-count-for-turbofan=50", "--invocation-count-for-turbofan=3000"],
      ]
    : []),
];
/** What dies only when callbacks of what died before it have run is found by the next collection. */
const COLLECTIONS = 3;
const LATER_TURNS = 3;

/** Compiles all of what `load` loads: what is not would be compiled in every clone, by its first call. */
export async function compiledWhole(load) {
  setFlagsFromString("--no-lazy");
  try {
    return await load();
  } finally {
    setFlagsFromString("--lazy");
  }
}

/**
 * Makes ready to be frozen: warms what the function asks for and what every call runs, has the function let go of what is not to be
 * copied, and leaves no garbage. `rehearse()` has the target answer what `take(bytes)` says until `done()`. Resolves with what is to be run after a
 * restore, if anything. Rejects with what a hook throws.
 */
export async function settle(target, warmTurns, rehearse) {
  const { warmUp, beforeSnapshot, afterRestore } = lifecycleOf(target.places);
  await warmUp?.();
  let stage = rehearse();
  const rehearsal = new Rehearsal(target, (bytes) => stage.take(bytes));
  for (const [flag] of REHEARSING) setFlagsFromString(flag);
  await rehearsal.run(warmTurns);
  stage.done();
  await beforeSnapshot?.();
  const collect = collector();
  await collectGarbage(collect);
  stage = rehearse();
  // The collection has thrown away a little of what was compiled.
  await rehearsal.run(warmTurns);
  stage.done();
  // Young objects alone, which throws nothing away that was compiled: were there room for few more, each clone would do this with its first call. What
  // lives on is young once more, and takes of that room; the second time it is old.
  for (let time = 0; time < 2; time++) collect({ type: "minor" });
  for (const [, flag] of REHEARSING) setFlagsFromString(flag);
  // The rehearsal's numbers are known to nobody, but without one there are none.
  if (warmTurns === 0) renew({});
  return afterRestore;
}

/** V8's collector, shown to a context of its own, so that user code does not find it. */
function collector() {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  return collect;
}

/** What the collector finds dead has callbacks (FinalizationRegistry), which run in later turns of the event loop: not after a restore. */
async function collectGarbage(collect) {
  for (let round = 0; round < COLLECTIONS; round++) {
    collect();
    for (let turn = 0; turn < LATER_TURNS; turn++)
      await new Promise((resolve) => setImmediate(resolve));
  }
}
