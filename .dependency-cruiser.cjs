// Which way imports point (ARCHITECTURE.md, "Where things live"): contracts, errors <- bundles, config <- telemetry <- db, queue <- services.
// `./cloister test --only imports` runs it on copies without types, where every file ends in .mjs.
const lib = (...names) => `^services/lib/(${names.join("|")})/`;
// runtime/runners/node/functions.ts and conversation.ts hold what the runners' tests share.
const testFiles =
  "[.]test[.]mjs$|/testkit/|^services/e2e/|^services/cli/e2e/|^runtime/runners/(node/functions|conversation)[.]mjs$";

/** Files of `from` may not import files of `to`. */
const never = (name, comment, from, to) => ({ name, comment, severity: "error", from, to });

module.exports = {
  forbidden: [
    never("no-cycles", "A circle has no bottom.", {}, { circular: true }),
    never("no-unresolved", "What is imported must exist.", {}, { couldNotResolve: true }),
    never("contracts-and-errors-are-the-bottom", "They import nothing of the project but each other.",
      { path: lib("contracts", "errors"), pathNot: testFiles },
      { path: "^(services|runtime|infra)/", pathNot: lib("contracts", "errors") }),
    never("config-above-contracts", "Config knows contracts and errors alone.",
      { path: lib("config"), pathNot: testFiles },
      { path: "^(services|runtime|infra)/", pathNot: lib("contracts", "errors", "config") }),
    never("bundles-above-contracts", "What a bundle may hold is known by contracts and errors alone.",
      { path: lib("bundles"), pathNot: testFiles },
      { path: "^(services|runtime|infra)/", pathNot: lib("contracts", "errors", "bundles") }),
    never("report-knows-nothing", "Figures and drawings know nothing of what they show.",
      { path: lib("report"), pathNot: testFiles },
      { path: "^(services|runtime|infra)/", pathNot: lib("report") }),
    never("telemetry-above-config", "Telemetry knows config and what is below it.",
      { path: lib("telemetry"), pathNot: testFiles },
      { path: "^(services|runtime|infra)/", pathNot: lib("contracts", "errors", "config", "telemetry") }),
    never("records-above-telemetry", "Records on their way know no database: who uses them names the sink.",
      { path: lib("records"), pathNot: testFiles },
      { path: "^(services|runtime|infra)/", pathNot: lib("contracts", "errors", "config", "telemetry", "records") }),
    never("db-and-queue-above-telemetry", "Neither knows the other, nor a service.",
      { path: "^services/lib/(db|queue)/", pathNot: testFiles },
      { path: "^(services|infra)/", pathNot: [lib("contracts", "errors", "config", "telemetry"), "^services/lib/$1/"] }),
    never("services-apart", "Services never import each other; the CLI's benchmarks use the worker's two public entries.",
      { path: "^services/(gateway|worker|cli|dashboard|sdk)/", pathNot: testFiles },
      { path: "^services/(gateway|worker|cli|dashboard|sdk)/", pathNot: ["^services/$1/", "^services/worker/(sandbox|placement)/index[.]mjs$"] }),
    never("worker-entry-for-the-cli-only", "Nobody but the CLI uses the worker's public entries.",
      { path: "^services/(gateway|dashboard|sdk)/", pathNot: testFiles }, { path: "^services/worker/" }),
    never("runtime-knows-no-service", "What runs inside or below a sandbox knows no service.",
      { path: "^runtime/", pathNot: testFiles }, { path: "^services/", pathNot: lib("contracts", "errors") }),
    never("loadtests-are-data", "A scenario says what is sent; who sends it is the CLI's.",
      { path: "^loadtests/", pathNot: testFiles }, { path: "^(services|runtime|infra)/", pathNot: lib("contracts") }),
    never("infra-knows-no-service", "Servers of one machine know no service.",
      { path: "^infra/", pathNot: testFiles }, { path: "^services/" }),
    never("only-db-knows-postgres", "Only services/lib/db knows drizzle and pg; making a database is infra/embedded's.",
      { pathNot: ["^services/lib/db/", "^infra/embedded/", "^migrations/", testFiles] },
      { path: "node_modules/(drizzle-orm|pg|pg-[a-z-]+)/" }),
    never("only-queue-knows-redis", "Only services/lib/queue knows BullMQ and ioredis.",
      { pathNot: ["^services/lib/queue/", testFiles], path: "^(services|runtime|infra)/" },
      { path: "node_modules/(bullmq|ioredis)/" }),
    never("only-telemetry-knows-opentelemetry", "Services know spans and counters of services/lib/telemetry; its libraries load only when traces are on.",
      { pathNot: ["^services/lib/telemetry/", testFiles], path: "^(services|runtime|infra)/" },
      { path: "node_modules/(@opentelemetry|prom-client)/" }),
    never("only-the-gateway-knows-hono", "HTTP routes are the gateway's.",
      { pathNot: ["^services/gateway/", testFiles], path: "^(services|runtime|infra)/" },
      { path: "node_modules/(hono|@hono)/" }),
    never("only-the-cli-knows-commander", "Words of the command line are the CLI's.",
      { pathNot: "^services/cli/", path: "^(services|runtime|infra)/" }, { path: "node_modules/commander/" }),
    never("sandboxd-behind-one-folder", "Only services/worker/sandbox knows sandboxd's socket; others use its entry.",
      { path: "^services/", pathNot: ["^services/worker/sandbox/", testFiles] },
      { path: "^services/worker/sandbox/sandboxd-" }),
    never("tests-import-production-not-the-other-way", "Production code never imports tests or the testkit.",
      { pathNot: testFiles, path: "^(services|runtime|infra)/" },
      { path: "[.]test[.]mjs$|/testkit/" }),
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    exclude: { path: "^node:" },
    moduleSystems: ["es6"],
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node", "default"] },
  },
};
