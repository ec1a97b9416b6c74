import { offerCallRequests } from "./call-request.mjs";
import { offerPlainResponses } from "./plain-response.mjs";

/** What has Node's own classes, as process.moduleLoadList calls it. */
const NODES_OWN = "NativeModule internal/deps/undici/undici";

/**
 * From now on functions find the Request and the Response that stand in for Node's own. Not if somebody may have taken hold of those already, who would not
 * know what stands in for them, or has put others there: user code that was loaded first, in a cold start, which loads nothing that its function does not
 * need. A second time it does nothing: the first has loaded Node's own.
 */
export function offerStandIns() {
  if (process.moduleLoadList.includes(NODES_OWN)) return;
  const { Request, Response } = globalThis;
  if (!isNodesOwn(Request, "method") || !isNodesOwn(Response, "status")) return;
  offerPlainResponses();
  offerCallRequests();
}

/** Only Node's own refuse so to tell a property of something else. */
function isNodesOwn(given, property) {
  try {
    Reflect.get(given.prototype, property, {});
    return false;
  } catch (error) {
    return error?.code === "ERR_INVALID_THIS";
  }
}
