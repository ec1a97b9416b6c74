import { shown } from "./call.mjs";
import { LoadFailed } from "./faults.mjs";

/** How long a restored function's own code may take before it serves, ms. */
const AFTER_RESTORE_MS = 10_000;

/**
 * What a function wants to be told: `lifecycle`, an export of the module or a property of its default export. Each of `warmUp`,
 * `beforeSnapshot` and `afterRestore` is undefined or gives a promise. Throws LoadFailed when one is no function.
 */
export function lifecycleOf(places) {
  const lifecycle = places.find((place) => place?.lifecycle !== undefined)?.lifecycle;
  return {
    warmUp: hook(lifecycle, "warmUp"),
    beforeSnapshot: hook(lifecycle, "beforeSnapshot"),
    afterRestore: hook(lifecycle, "afterRestore", AFTER_RESTORE_MS),
  };
}

function hook(lifecycle, name, boundMs) {
  const own = lifecycle?.[name];
  if (own === undefined || own === null) return undefined;
  if (typeof own !== "function")
    throw new LoadFailed(`lifecycle.${name} is ${shown(own)}. Export a function.`);
  return async () => {
    try {
      await within(own.call(lifecycle), boundMs);
    } catch (thrown) {
      throw named(thrown, name);
    }
  };
}

/** Rejects when `work` takes longer than `boundMs`, if there is a bound. */
async function within(work, boundMs) {
  if (boundMs === undefined || typeof work?.then !== "function") return work;
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`it took longer than ${boundMs} ms`)), boundMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The same error, which says which hook threw it. */
function named(thrown, name) {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  try {
    error.message = `lifecycle.${name}: ${error.message}`;
  } catch {
    // A message that cannot be set is left as it is.
  }
  return error;
}
