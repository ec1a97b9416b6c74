import type { Command } from "commander";

/** By the time this runs the entry script has done the work. */
export const registerSetup = (program: Command): void => {
  program
    .command("setup")
    .description("install what is missing, and nothing else")
    .action(() => void process.stdout.write("This machine is set up.\n"));
};
