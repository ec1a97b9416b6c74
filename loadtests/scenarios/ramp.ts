import { loadTest } from "../lib/load-test.ts";
import { ramp } from "../plans/ramp.ts";

const test = loadTest(ramp);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
