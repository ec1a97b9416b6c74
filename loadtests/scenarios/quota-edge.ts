import { loadTest } from "../lib/load-test.ts";
import { quotaEdge } from "../plans/quota-edge.ts";

const test = loadTest(quotaEdge);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
