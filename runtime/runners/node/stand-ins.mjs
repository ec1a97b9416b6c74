import { offerCallRequests } from "./call-request.mjs";
import { offerPlainResponses } from "./plain-response.mjs";

/** What has Node's own classes, as process.moduleLoadList calls it. */
const NODES_OWN = "NativeModule internal/deps/undici/undici";

let isOffered = false;

/**
 * From now on functions find the Request and the Response that stand in for Node's own. Not if somebody may have taken hold of those already, who would not
 * know what stands in for them: user code that was loaded first, in a cold start, which loads nothing that its function does not need.
 */
export function offerStandIns() {
  if (isOffered) return;
  isOffered = true;
  if (process.moduleLoadList.includes(NODES_OWN)) return;
  offerPlainResponses();
  offerCallRequests();
}
