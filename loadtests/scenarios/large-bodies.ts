import { loadTest } from "../lib/load-test.ts";
import { largeBodies } from "../plans/large-bodies.ts";

const test = loadTest(largeBodies);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
