/** What the command line uses of the worker to measure a decision as it is made there. */
export { SandboxPool } from "../pool/sandbox-pool.ts";
export { Placer } from "./placer.ts";
