import { loadTest } from "../lib/load-test.ts";
import { soak } from "../plans/soak.ts";

const test = loadTest(soak);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
