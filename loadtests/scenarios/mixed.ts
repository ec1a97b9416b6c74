import { loadTest } from "../lib/load-test.ts";
import { mixed } from "../plans/mixed.ts";

const test = loadTest(mixed);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
