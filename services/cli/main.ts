import { Command, CommanderError } from "commander";
import { registerBench } from "./commands/bench.ts";
import { registerDemo } from "./commands/demo.ts";
import { registerDeploy } from "./commands/deploy.ts";
import { registerDoctor } from "./commands/doctor.ts";
import { registerDown } from "./commands/down.ts";
import {
  registerLs,
  registerPlacement,
  registerRm,
  registerVersions,
} from "./commands/functions.ts";
import { registerInvoke } from "./commands/invoke.ts";
import { registerLogs } from "./commands/logs.ts";
import { registerNotYet } from "./commands/not-yet.ts";
import { registerSetup } from "./commands/setup.ts";
import { registerTest } from "./commands/test.ts";
import { registerUp } from "./commands/up.ts";
import { EXIT, reportFailure } from "./failure.ts";

const AFTER_HELP = `
Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
Environment: CLOISTER_URL and CLOISTER_KEY name a service and its key, CLOISTER_DATA a data folder; CLOISTER_DATABASE_URL and
CLOISTER_REDIS_URL make up use your own PostgreSQL and Redis; NO_COLOR.`;

const program = new Command("cloister")
  .usage("<command> [options]")
  .description("Serverless sandboxes: functions over HTTP in namespaced containers.")
  .version("0.1.0")
  .showHelpAfterError("Run ./cloister <command> --help.")
  .addHelpText("after", AFTER_HELP)
  .exitOverride();

registerDemo(program);
registerUp(program);
registerDown(program);
registerDeploy(program);
registerInvoke(program);
registerLs(program);
registerRm(program);
registerLogs(program);
registerVersions(program);
registerPlacement(program);
registerDoctor(program);
registerBench(program);
registerTest(program);
registerSetup(program);
registerNotYet(program);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  } else process.exitCode = reportFailure(error);
}
