import { type Command, InvalidArgumentError, Option } from "commander";
import type { Path } from "#contracts/function";
import type { FairnessReport, FloodReport } from "../bench/fairness.ts";
import { EXIT, Failure } from "../failure.ts";
import { ms, printJson, table } from "../terminal/table.ts";
import { adminApiOf, forService, type ServiceOptions } from "./service-options.ts";

interface FairnessCommandOptions extends ServiceOptions {
  seconds: number;
  rounds: number;
  calls: number;
  floodIsolation: Path | "both";
}

const within =
  (most: number) =>
  (text: string): number => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= 1 && value <= most) return value;
    throw new InvalidArgumentError(`A whole number from 1 to ${most} is needed.`);
  };

export const registerBenchFairness = (bench: Command): void => {
  forService(
    bench
      .command("fairness")
      .description(
        "how long a tenant's few calls take alone and beside another tenant's flood, in turn, after a flood of 6 s that does not count, against a running service",
      )
      .option("--seconds <n>", "of each part of each round", within(600), 5)
      .option("--rounds <n>", "alone and beside the flood so many times", within(100), 3)
      .option("--calls <n>", "the flood's calls at once", within(1000), 64)
      .addOption(
        new Option("--flood-isolation <path>", "where the flood's function runs")
          .choices(["container", "microvm", "both"])
          .default("container"),
      ),
  ).action(fairness);
};

async function fairness(options: FairnessCommandOptions): Promise<void> {
  const { benchFairness } = await import("../bench/fairness.ts");
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const report = await benchFairness({
    admin: adminApiOf(options),
    seconds: options.seconds,
    rounds: options.rounds,
    calls: options.calls,
    isolations:
      options.floodIsolation === "both" ? ["container", "microvm"] : [options.floodIsolation],
    signal: abort.signal,
    onProgress: (text) => void process.stderr.write(`${text}\n`),
  });
  if (options.json) printJson(report);
  else process.stdout.write(shown(report));
  if (abort.signal.aborted)
    throw new Failure(
      "The benchmark was interrupted.",
      "What is shown is what was measured.",
      EXIT.interrupted,
    );
  if (report.floods.some(({ beside, flood }) => beside.failures > 0 || flood.failed > 0))
    process.exitCode = EXIT.failed;
}

const right = (title: string) => ({ title, right: true });
const show = (value: number | null | undefined): string => ms(value ?? undefined);

function shown({ calls, alone, alone_phases, floods }: FairnessReport): string {
  const row = (name: string, { n, failures, p50_ms, p90_ms, p99_ms, max_ms }: typeof alone) => [
    name,
    ...[n, failures].map(String),
    ...[p50_ms, p90_ms, p99_ms, max_ms].map(show),
  ];
  const beside = ({ isolation }: FloodReport): string =>
    `beside ${calls} calls at once, ${isolation}`;
  let text = table(
    [{ title: "QUIET TENANT (ms)" }, ...["n", "failures", "p50", "p90", "p99", "max"].map(right)],
    [row("alone", alone), ...floods.map((flood) => row(beside(flood), flood.beside))],
  );
  text += `\n${table(
    [
      { title: "ITS PHASES, P50 / P99 (ms)" },
      right("alone"),
      ...floods.map(({ isolation }) => right(isolation)),
    ],
    Object.keys(alone_phases).map((name) => [
      name,
      ...[alone_phases, ...floods.map(({ beside_phases }) => beside_phases)].map(
        ({ [name]: phase }) => `${show(phase?.p50_ms)} / ${show(phase?.p99_ms)}`,
      ),
    ]),
  )}\n`;
  for (const { isolation, p99_ratio, p50_ratio, flood, flood_answers_per_quiet_call } of floods)
    text +=
      `${isolation}: p99 ${p99_ratio ?? "-"} times, p50 ${p50_ratio ?? "-"} times as long; ${flood_answers_per_quiet_call} calls of the flood were answered during one of the quiet tenant's.\n` +
      `The flood: ${flood.answered} answered (${flood.rps} a second), ${flood.refused} refused, ${flood.failed} failed.\n`;
  return text;
}
