import { type Command, InvalidArgumentError, Option } from "commander";
import { pathSchema } from "#contracts/function";
import { EXIT, Failure } from "../failure.ts";
import { ms, printJson, table } from "../terminal/table.ts";

interface ThroughputCommandOptions {
  seconds: number;
  warmUp: number;
  rate: number;
  callers?: number;
  path?: "container" | "microvm";
  dataDir?: string;
  json?: boolean;
}

const between =
  (least: number, most: number) =>
  (text: string): number => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`A whole number from ${least} to ${most} is needed.`);
  };

export const registerThroughput = (bench: Command): void => {
  bench
    .command("throughput")
    .description(
      "warm calls of examples/hello through HTTP and the queue, paths in turns: at a constant rate (what is due while 400 are under way is dropped and counted), or by callers who each ask again when they have their answer; of the p50 is told what the sandbox itself took, and what a request took beyond that",
    )
    .option("--seconds <n>", "for each path, in turns of 2 s", between(1, 600), 10)
    .option(
      "--warm-up <n>",
      "seconds for each path before anything counts, in which code is compiled",
      between(0, 600),
      40,
    )
    .option("--rate <n>", "calls due each second", between(1, 50_000), 1000)
    .addOption(
      new Option("--callers <n>", "so many callers instead of a rate")
        .argParser(between(1, 1000))
        .conflicts("rate"),
    )
    .addOption(new Option("--path <path>", "this path alone").choices([...pathSchema.options]))
    .option(
      "--data-dir <folder>",
      "a service that runs (default: one of its own, which is stopped)",
    )
    .option("--json", "print JSON for scripts")
    .action(throughput);
};

async function throughput(options: ThroughputCommandOptions): Promise<void> {
  const { benchThroughput } = await import("../bench/throughput.ts");
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const report = await benchThroughput({
    seconds: options.seconds,
    warmUpSeconds: options.warmUp,
    load:
      options.callers === undefined
        ? { ratePerSecond: options.rate }
        : { callers: options.callers },
    paths: options.path ? [options.path] : pathSchema.options,
    ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }),
    signal: abort.signal,
    onProgress: (text) => void process.stderr.write(`${text}\n`),
  });
  if (options.json) printJson(report);
  else {
    const titles = [
      "requests",
      "failures",
      "dropped",
      "rps",
      "p50",
      "p90",
      "p99",
      "max",
      "p99/p50",
      "p50 sandbox",
      "p50 beyond",
    ];
    const title =
      options.callers === undefined ? `${options.rate} A SECOND` : `${options.callers} CALLERS`;
    const rows = report.paths.map((one) => [
      one.path,
      one.start,
      ...[one.requests, one.failures, one.dropped, one.rps].map(String),
      ...[one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms].map((value) => ms(value ?? undefined)),
      String(one.p99_to_p50 ?? "-"),
      ...[one.sandbox_p50_ms, one.beyond_p50_ms].map((value) => ms(value ?? undefined)),
    ]);
    const right = (title: string) => ({ title, right: true });
    process.stdout.write(
      table([{ title: `${title} (ms)` }, { title: "start" }, ...titles.map(right)], rows),
    );
    const parts = [...new Set(report.paths.flatMap(({ cpu_us }) => Object.keys(cpu_us)))];
    const cpu = report.paths.map(({ path, cpu_us }) => [
      path,
      ...parts.map((part) => String(cpu_us[part] ?? "-")),
      String(Object.values(cpu_us).reduce((sum, us) => sum + us, 0)),
    ]);
    process.stdout.write(
      `\n${table([{ title: "PROCESSOR TIME (µs a request)" }, ...[...parts, "all"].map(right)], cpu)}`,
    );
    for (const { path, reason, firstFailure } of report.paths) {
      if (reason !== undefined) process.stdout.write(`${path} cannot be had: ${reason}\n`);
      if (firstFailure !== undefined)
        process.stdout.write(`${path}, first failure: ${firstFailure}\n`);
    }
  }
  if (abort.signal.aborted)
    throw new Failure(
      "The benchmark was interrupted.",
      "What is shown is what was measured.",
      EXIT.interrupted,
    );
  if (report.paths.some(({ failures }) => failures > 0)) process.exitCode = EXIT.failed;
}
