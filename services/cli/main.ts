import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { Command, CommanderError } from "commander";
import { EXIT, reportFailure } from "./failure.ts";

// Compiled once instead of at each start: that is half of what a command takes. Root's alone, as all that set-up makes; where it cannot be written, nothing is kept.
enableCompileCache(join(import.meta.dirname, "../../.cloister/compiled"));

const AFTER_HELP = `
Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
Environment: CLOISTER_URL and CLOISTER_KEY name a service and its key, CLOISTER_DATA a data folder; CLOISTER_DATABASE_URL and
CLOISTER_REDIS_URL make up use your own PostgreSQL and Redis; NO_COLOR.`;

/** In the order help shows them. Only the module of the command that is called is loaded: loading all takes as long as most of them run. */
const COMMANDS: Record<string, () => Promise<(program: Command) => void>> = {
  demo: async () => (await import("./commands/demo.ts")).registerDemo,
  up: async () => (await import("./commands/up.ts")).registerUp,
  down: async () => (await import("./commands/down.ts")).registerDown,
  deploy: async () => (await import("./commands/deploy.ts")).registerDeploy,
  invoke: async () => (await import("./commands/invoke.ts")).registerInvoke,
  ls: async () => (await import("./commands/functions.ts")).registerLs,
  rm: async () => (await import("./commands/functions.ts")).registerRm,
  logs: async () => (await import("./commands/logs.ts")).registerLogs,
  versions: async () => (await import("./commands/functions.ts")).registerVersions,
  placement: async () => (await import("./commands/placement.ts")).registerPlacement,
  compare: async () => (await import("./commands/compare.ts")).registerCompare,
  usage: async () => (await import("./commands/usage.ts")).registerUsage,
  tenant: async () => (await import("./commands/tenant.ts")).registerTenant,
  key: async () => (await import("./commands/key.ts")).registerKey,
  quota: async () => (await import("./commands/quota.ts")).registerQuota,
  bench: async () => (await import("./commands/bench.ts")).registerBench,
  load: async () => (await import("./commands/load.ts")).registerLoad,
  doctor: async () => (await import("./commands/doctor.ts")).registerDoctor,
  test: async () => (await import("./commands/test.ts")).registerTest,
  setup: async () => (await import("./commands/setup.ts")).registerSetup,
};

const program = new Command("cloister")
  .usage("<command> [options]")
  .description(
    "Serverless sandboxes: functions over HTTP in namespaced containers and KVM micro-VMs.",
  )
  .version("0.1.0")
  .showHelpAfterError("Run ./cloister <command> --help.")
  .addHelpText("after", AFTER_HELP)
  .exitOverride();

try {
  const called = COMMANDS[process.argv[2] ?? ""];
  for (const load of called ? [called] : Object.values(COMMANDS)) (await load())(program);
  if (!called) (await import("./commands/not-yet.ts")).registerNotYet(program);
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  } else process.exitCode = reportFailure(error);
}
