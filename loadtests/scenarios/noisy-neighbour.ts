import { loadTest } from "../lib/load-test.ts";
import { noisyNeighbour } from "../plans/noisy-neighbour.ts";

const test = loadTest(noisyNeighbour);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
