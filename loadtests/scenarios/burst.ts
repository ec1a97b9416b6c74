import { loadTest } from "../lib/load-test.ts";
import { burst } from "../plans/burst.ts";

const test = loadTest(burst);
export const { options, setup, teardown, handleSummary } = test;
export default test.call;
