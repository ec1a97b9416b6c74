import type { StepMessage } from "./step-beside.ts";
import { STEPS } from "./steps.ts";

// Started by StepBeside: runs the step that is named, and tells over the channel.

const step = STEPS.find(({ name }) => name === process.argv[2]);
if (!step) throw new Error(`there is no step ${process.argv[2]}`);
const say = (message: StepMessage): Promise<void> =>
  new Promise((done, failed) =>
    process.send?.(message, (error: Error | null) => (error ? failed(error) : done())),
  );
// Whoever started it has gone: nobody would hear how it ends.
process.once("disconnect", () => process.exit(1));
const outcome = await step
  .run((line) => void say({ line }).catch(() => {}))
  .catch((error: unknown) => {
    const output = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { passed: 0, failed: 1, skipped: 0, output };
  });
await say({ outcome });
process.exit(0);
