import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { lifecycleOf } from "./lifecycle.mjs";
import { rehearse } from "./rehearsal.mjs";
import { renew } from "./renewal.mjs";

/**
 * Makes ready to be frozen: warms what the function asks for and what every call runs, has the function let go of what is not to be
 * copied, and leaves no garbage. Resolves with what is to be run after a restore, if anything. Rejects with what a hook throws.
 */
export async function settle(target, warmTurns) {
  const { warmUp, beforeSnapshot, afterRestore } = lifecycleOf(target.places);
  await warmUp?.();
  await rehearse(target.kind, warmTurns);
  // The rehearsal's numbers can be foretold.
  renew({});
  await beforeSnapshot?.();
  collectGarbage();
  return afterRestore;
}

/** The collector is shown to a context of its own, so that user code does not find it. */
function collectGarbage() {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  collect();
}
