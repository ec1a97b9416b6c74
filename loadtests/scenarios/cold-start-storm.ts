import { loadTest } from "../lib/load-test.ts";
import { coldStartStorm } from "../plans/cold-start-storm.ts";

const test = loadTest(coldStartStorm);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
