import { loadTest } from "../lib/load-test.ts";
import { warmSteady } from "../plans/warm-steady.ts";

const test = loadTest(warmSteady);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
