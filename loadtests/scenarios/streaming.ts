import { loadTest } from "../lib/load-test.ts";
import { streaming } from "../plans/streaming.ts";

const test = loadTest(streaming);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
