import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { lifecycleOf } from "./lifecycle.mjs";
import { Rehearsal } from "./rehearsal.mjs";
import { renew } from "./renewal.mjs";

/** Share of the rehearsal that follows the collection, which throws away a little of what was compiled. */
const AGAIN = 0.2;
/** V8's defaults stand on the right. They are put back because node's own modules come compiled for these flags. */
const KEEPING = [
  ["--retain-maps-for-n-gc=1000", "--retain-maps-for-n-gc=2"],
  ["--no-flush-bytecode", "--flush-bytecode"],
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
  for (const [flag] of KEEPING) setFlagsFromString(flag);
  await rehearsal.run(warmTurns);
  stage.done();
  await beforeSnapshot?.();
  await collectGarbage();
  stage = rehearse();
  await rehearsal.run(Math.ceil(warmTurns * AGAIN));
  stage.done();
  for (const [, flag] of KEEPING) setFlagsFromString(flag);
  // The rehearsal's numbers are known to nobody, but without one there are none.
  if (warmTurns === 0) renew({});
  return afterRestore;
}

/**
 * The collector is shown to a context of its own, so that user code does not find it. What it finds dead has callbacks (FinalizationRegistry), which run in
 * later turns of the event loop: not after a restore.
 */
async function collectGarbage() {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  for (let round = 0; round < COLLECTIONS; round++) {
    collect();
    for (let turn = 0; turn < LATER_TURNS; turn++)
      await new Promise((resolve) => setImmediate(resolve));
  }
}
