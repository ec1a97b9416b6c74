import type { Command } from "commander";
import { Failure } from "../failure.ts";

/** Commands that have a name but no service behind them in this version, with what to do instead. */
const NOT_YET: Record<string, string> = {
  alias: "Call a version by its number: name@3.",
  rollback: "Deploy the former state again.",
  secret: "Pass values with deploy --env.",
  schedule: "Call the function from cron with ./cloister invoke.",
  "dead-letters": "Synchronous calls get their error at once; there is nothing to keep.",
};

export const registerNotYet = (program: Command): void => {
  for (const [name, remedy] of Object.entries(NOT_YET)) {
    program
      .command(name, { hidden: true })
      .description("not in this version")
      .allowUnknownOption()
      .allowExcessArguments()
      .argument("[words...]")
      .action(() => {
        throw new Failure(`./cloister ${name} is not in this version.`, remedy);
      });
  }
};
