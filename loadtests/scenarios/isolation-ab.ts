import { loadTest } from "../lib/load-test.ts";
import { isolationAb } from "../plans/isolation-ab.ts";

const test = loadTest(isolationAb);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
