import type { Command } from "commander";
import { signalProcess, waitGone } from "#embedded/process-life";
import { Failure } from "../failure.ts";
import { foldersOf } from "../instance/folders.ts";
import { lockInstance } from "../instance/instance-lock.ts";
import { removeLeftovers } from "../instance/leftovers.ts";
import { runningState } from "../instance/state-file.ts";

/** Longer than the sum of what draining may take, ms. */
const STOP_BOUND_MS = 150_000;

export const registerDown = (program: Command): void => {
  program
    .command("down")
    .description("drain and stop the running service; returns when all of it has ended")
    .option("--data <folder>", "its data folder (default: CLOISTER_DATA, else /var/lib/cloister)")
    .action(async (options: { data?: string }) => {
      const folders = foldersOf(options.data);
      const state = runningState(folders.stateFile);
      if (!state) {
        // A killed `up` may have left something; nobody else may start it meanwhile.
        const lock = await lockInstance(folders.id, folders.data);
        const found = await removeLeftovers(folders);
        lock.close();
        if (found.length > 0)
          process.stderr.write(`Removed what a former run left: ${found.join(", ")}.\n`);
        process.stdout.write(`nothing runs on ${folders.data}\n`);
        return;
      }
      const { pid, startTime } = state.supervisor;
      process.stderr.write(`Draining ${state.url} …\n`);
      signalProcess(pid, startTime, "SIGTERM");
      if (!(await waitGone(pid, startTime, STOP_BOUND_MS))) {
        throw new Failure(
          `The service (pid ${pid}) has not ended in ${STOP_BOUND_MS / 1000} s.`,
          `See ${folders.logs}/up.log; end it with kill -9 ${pid} and run ./cloister down again.`,
        );
      }
      process.stdout.write(`stopped ${state.url}\n`);
    });
};
