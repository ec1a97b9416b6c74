import { type Command, InvalidArgumentError, Option } from "commander";
import type { Path } from "#contracts/function";
import type { Distribution, Interval } from "#report/statistics";
import type { HelloRuntime } from "../bench/ground.ts";
import type { Rounds } from "../bench/rounds.ts";
import { EXIT, Failure } from "../failure.ts";
import type { HostFacts } from "../host/facts.ts";
import { writeReport } from "../terminal/report-file.ts";
import { type Column, ms, printJson, table } from "../terminal/table.ts";
import { registerBenchFairness } from "./bench-fairness.ts";
import { registerBenchQuota } from "./bench-quota.ts";
import { registerThroughput } from "./bench-throughput.ts";

interface BootCommandOptions {
  n: number;
  json?: boolean;
  modes?: string[];
  phases?: boolean;
  html?: string;
  runtime: HelloRuntime;
}

interface RateCommandOptions {
  n: number;
  clients: number;
  runtime?: HelloRuntime;
  json?: boolean;
}

interface OverheadCommandOptions {
  n: number;
  json?: boolean;
  workloads?: string[];
}

const RUNTIMES: HelloRuntime[] = ["node24", "python3"];

const count = (text: string): number => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 10_000) return value;
  throw new InvalidArgumentError("A whole number from 1 to 10000 is needed.");
};

export const registerBench = (program: Command): void => {
  const bench = program
    .command("bench")
    .description("measure sandboxes, without HTTP; throughput through it");
  bench
    .command("boot")
    .description(
      "from the request for a sandbox to the answer of examples/hello, modes interleaved; warm is a call after 20 others, of a micro-VM one that came out of a snapshot",
    )
    .option("-n <rounds>", "measurements of each mode", count, 100)
    .option("--modes <list>", "separated by commas; default: all that can run here", (text) =>
      text.split(","),
    )
    .option("--html <file>", "write a report with plots, which needs nothing else")
    .option("--phases", "also where the time goes, and what a sandbox has cost by its first answer")
    .addOption(
      new Option("--runtime <runtime>", "of the function: examples/hello, or examples/hello-python")
        .choices(RUNTIMES)
        .default("node24"),
    )
    .option("--json", "print JSON for scripts")
    .action(boot);
  bench
    .command("rate")
    .description(
      "micro-VMs a second, each a fresh process and machine out of the snapshot of its function, to its first answer, for clients that all want one after the other",
    )
    .option("-n <micro-VMs>", "of each runtime", count, 1000)
    .option("--clients <count>", "at once", count, 8)
    .addOption(new Option("--runtime <runtime>", "default: each, in turns").choices(RUNTIMES))
    .option("--json", "print JSON for scripts")
    .action(rate);
  bench
    .command("memory")
    .description(
      "private memory of micro-VMs of examples/hello that serve at once: the monitor's own, and the guest's",
    )
    .option(
      "--count <machines>",
      "how many, at least 2 so that what is shared is told apart",
      count,
      2,
    )
    .option("--json", "print JSON for scripts")
    .action(memory);
  bench
    .command("overhead")
    .description(
      "the same work on each path, rounds interleaved: computing, memory, system calls, files, JSON, crypto, compression, starts",
    )
    .option("-n <rounds>", "measurements of each", count, 20)
    .option("--workloads <list>", "separated by commas; default: all", (text) => text.split(","))
    .option("--json", "print JSON for scripts")
    .action(overhead);
  bench
    .command("density")
    .description(
      "so many sandboxes of examples/hello alive at once, each of which has answered: memory of each, and what is left when they have ended",
    )
    .addOption(
      new Option("--path <path>", "which kind of sandbox")
        .choices(["container", "microvm"])
        .default("microvm"),
    )
    .option("--count <sandboxes>", "how many", count, 100)
    .option("--json", "print JSON for scripts")
    .action(density);
  bench
    .command("placement")
    .description("how long the worker takes to decide where a call runs; starts nothing")
    .option("-n <decisions>", "measurements of each case", count, 10_000)
    .option("--json", "print JSON for scripts")
    .action(placement);
  registerThroughput(bench);
  registerBenchQuota(bench);
  registerBenchFairness(bench);
};

async function memory(options: { count: number; json?: boolean }): Promise<void> {
  const { benchMemory } = await import("../bench/memory.ts");
  const report = await benchMemory(options.count);
  if (options.json) {
    printJson(report);
    return;
  }
  const columns = [
    { title: "MICRO-VM (KiB)" },
    { title: "monitor", right: true },
    { title: "guest", right: true },
  ];
  const rows = report.machines.map((one, index) => [
    String(index + 1),
    String(one.monitor_private_kib),
    String(one.guest_private_kib),
  ]);
  process.stdout.write(table(columns, rows));
}

async function placement(options: { n: number; json?: boolean }): Promise<void> {
  const { benchPlacement } = await import("../bench/placement.ts");
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const report = await benchPlacement(options.n, abort.signal);
  if (options.json) {
    printJson(report);
    return;
  }
  writeHost(report.host);
  const titles = ["n", "p50", "p99", "max"].map((title) => ({ title, right: true }));
  const rows = report.cases.map(({ case: name, n, p50_us, p99_us, max_us }) => [
    name,
    String(n),
    ...[p50_us, p99_us, max_us].map((us) => us.toFixed(2)),
  ]);
  process.stdout.write(table([{ title: "ONE DECISION (us)" }, ...titles], rows));
  process.stdout.write(
    `\n${report.clock_us.toFixed(2)} us of each are the clock's own. Rules: table ${report.table}.\n`,
  );
  finish(abort.signal, {});
}

interface DensityCommandOptions {
  path: Path;
  count: number;
  json?: boolean;
}

async function density({ path, count, json }: DensityCommandOptions): Promise<void> {
  const { benchDensity } = await import("../bench/density.ts");
  const signal = untilSignalled();
  const report = await benchDensity({
    path,
    count,
    signal,
    onProgress: (text) => void process.stderr.write(`${text}\n`),
  });
  if (json) printJson(report);
  else {
    writeHost(report.host);
    const titles = ["live", "answered", "failures", "private KiB each", "host KiB each"];
    const columns = titles.map((title) => ({ title, right: true }));
    const cells = [report.live, report.answered, report.failures].map(String);
    const each = [report.private_kib_each, report.host_kib_each].map((kib) => String(kib ?? "-"));
    const row = [`${path}-${report.start}`, ...cells, ...each];
    process.stdout.write(table([{ title: "SANDBOXES" }, ...columns], [row]));
    const { left } = report;
    process.stdout.write(`left behind: ${left.length === 0 ? "nothing" : left.join(", ")}\n`);
  }
  const { left, firstFailure } = report;
  const wrong = {
    ...(firstFailure === undefined ? {} : { [path]: firstFailure }),
    ...(left.length === 0 ? {} : { "left behind": left.join(", ") }),
  };
  if (!json) writeFailures(wrong);
  finish(signal, wrong);
}

async function boot(options: BootCommandOptions): Promise<void> {
  const { benchBoot, MODE_NAMES } = await import("../bench/boot.ts");
  requireKnown("mode", options.modes, MODE_NAMES);
  const rounds = await roundsOf(options);
  if (options.html !== undefined) writeReport(options.html, "", "a");
  const report = await benchBoot({
    ...rounds,
    runtime: options.runtime,
    ...(options.modes ? { modes: options.modes } : {}),
  });
  if (options.html !== undefined) {
    const { bootPage } = await import("../bench/boot-page.ts");
    writeReport(options.html, bootPage(report));
    process.stderr.write(`Report: ${options.html}\n`);
  }
  if (options.json) printJson(report);
  else {
    writeHost(report.host);
    const rows = report.modes.map((one) => [one.mode, ...timesOf(one)]);
    process.stdout.write(table([{ title: "MODE (ms)" }, ...TIMES], rows));
    if (options.phases) {
      const { costTable, timeTable } = await import("../bench/boot-tables.ts");
      for (const { columns, rows } of [timeTable(report), costTable(report)])
        process.stdout.write(`\n${table(columns, rows)}`);
    }
    for (const { mode, reason } of report.unavailable) process.stdout.write(`${mode}: ${reason}\n`);
    for (const { mode, remark } of report.remarks) process.stdout.write(`${mode}: ${remark}\n`);
    writeFailures(report.firstFailures);
  }
  finish(rounds.signal, report.firstFailures);
}

const TIMES: Column[] = ["n", "failures", "min", "p50", "p90", "p99", "max"].map((title) => ({
  title,
  right: true,
}));

const timesOf = (one: Distribution): string[] => [
  String(one.n),
  String(one.failures),
  ...[one.min_ms, one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms].map((value) =>
    ms(value ?? undefined),
  ),
];

async function rate({ n, clients, runtime, json }: RateCommandOptions): Promise<void> {
  const { benchRate } = await import("../bench/rate.ts");
  const signal = untilSignalled();
  const report = await benchRate({
    runtimes: runtime ? [runtime] : RUNTIMES,
    count: n,
    clients,
    signal,
    onProgress: (text) => void process.stderr.write(`${text}\n`),
  });
  if (json) printJson(report);
  else {
    writeHost(report.host);
    const columns = [{ title: `RUNTIME (${clients} clients)` }];
    const rights = ["per second", "processor ms each"].map((title) => ({ title, right: true }));
    const rows = report.rates.map((one) => [
      one.runtime,
      ...[one.per_second, one.cpu_ms_each].map((value) => value?.toFixed(1) ?? "-"),
      ...timesOf(one),
    ]);
    process.stdout.write(table([...columns, ...rights, ...TIMES], rows));
    process.stdout.write(
      "\nTimes from the request to the first answer, ms. The rate counts the whole run, also the ends of the micro-VMs.\n",
    );
    writeFailures(report.firstFailures);
  }
  finish(signal, report.firstFailures);
}

/** Ends what runs when Ctrl-C or SIGTERM comes. */
function untilSignalled(): AbortSignal {
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  return abort.signal;
}

async function overhead(options: OverheadCommandOptions): Promise<void> {
  const { benchOverhead, WORKLOAD_NAMES } = await import("../bench/overhead.ts");
  requireKnown("workload", options.workloads, WORKLOAD_NAMES);
  const rounds = await roundsOf(options);
  const report = await benchOverhead({
    ...rounds,
    ...(options.workloads ? { workloads: options.workloads } : {}),
  });
  if (options.json) printJson(report);
  else {
    writeHost(report.host);
    const right = (title: string): Column => ({ title, right: true });
    const over = (ratio: number | null): string =>
      ratio === null ? "-" : `${ratio < 1 ? "" : "+"}${((ratio - 1) * 100).toFixed(1)} %`;
    const titles = [
      ...["n", "failures", "process", "container", "over", "of least"],
      ...["microvm", "over", "95 %", "of least", "95 %", "exits", "page faults"],
    ];
    const between = (found: Interval | null): string =>
      found ? `${over(found.low)} to ${over(found.high)}` : "-";
    const rows = report.workloads.map((one) => [
      one.name,
      String(one.n),
      String(Object.values(one.failures).reduce((sum, count) => sum + count, 0)),
      ms(one.process_ms ?? undefined),
      ms(one.container_ms ?? undefined),
      over(one.container_ratio),
      over(one.container_least_ratio),
      ms(one.microvm_ms ?? undefined),
      over(one.microvm_ratio),
      between(one.microvm_interval),
      over(one.microvm_least_ratio),
      between(one.microvm_least_interval),
      one.exits ? String(Object.values(one.exits).reduce((sum, count) => sum + count, 0)) : "-",
      String(one.page_faults ?? "-"),
    ]);
    process.stdout.write(table([{ title: "WORKLOAD (ms)" }, ...titles.map(right)], rows));
    process.stdout.write(
      `\nMedians; over: beyond the bare process in the same round, the median of all; each path has a new sandbox every ${report.roundsOfASandbox} rounds, and 95 % is by bootstrap over those. Of least: of what least met other work of the machine. Exits and page faults: of the micro-VM, each time.\n`,
    );
    for (const { path, reason } of report.unavailable) process.stdout.write(`${path}: ${reason}\n`);
    writeFailures(report.firstFailures);
  }
  finish(rounds.signal, report.firstFailures);
}

function requireKnown(
  what: string,
  asked: readonly string[] | undefined,
  known: readonly string[],
): void {
  const unknown = asked?.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new Failure(
    `There is no ${what} ${unknown}.`,
    `Choose from ${known.join(", ")}.`,
    EXIT.usage,
  );
}

/** Announces the rounds; a signal ends them early. */
async function roundsOf(options: { n: number; json?: boolean }): Promise<Rounds> {
  const { WARM_UP_ROUNDS } = await import("../bench/rounds.ts");
  const terminal = process.stderr.isTTY === true;
  if (!options.json) {
    process.stderr.write(
      `${options.n} rounds, after ${WARM_UP_ROUNDS} that are not counted; each runs everything once.\n`,
    );
  }
  return {
    rounds: options.n,
    signal: untilSignalled(),
    onRound: (done, of) => {
      if (terminal) process.stderr.write(`\rround ${done} of ${of}${done === of ? "\n" : ""}`);
    },
  };
}

function writeHost({ cpu, cores, memoryMb, kernel, cgroup, node }: HostFacts): void {
  process.stdout.write(
    `${cpu}, ${cores} cores, ${memoryMb} MiB, Linux ${kernel}, cgroups ${cgroup}, node ${node}\n\n`,
  );
}

function writeFailures(first: Record<string, string>): void {
  for (const [name, text] of Object.entries(first))
    process.stdout.write(`${name}, first failure: ${text}\n`);
}

function finish(signal: AbortSignal, firstFailures: Record<string, string>): void {
  if (signal.aborted)
    throw new Failure(
      "The benchmark was interrupted.",
      "What is shown is what was measured.",
      EXIT.interrupted,
    );
  if (Object.keys(firstFailures).length > 0) process.exitCode = EXIT.failed;
}
