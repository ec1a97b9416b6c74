import { type Command, InvalidArgumentError, Option } from "commander";
import type { Distribution } from "#report/statistics";
import { EXIT, Failure } from "../failure.ts";
import { ms, printJson, table } from "../terminal/table.ts";

/** Calls a second: few, and as many as a busy gateway has. */
const RATES = [100, 500];

interface QuotaBenchCommandOptions {
  seconds: number;
  rate: number[];
  limit: number;
  json?: boolean;
}

const whole = (text: string): number => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 100_000) return value;
  throw new InvalidArgumentError("A whole number from 1 to 100000 is needed.");
};

export const registerBenchQuota = (bench: Command): void => {
  bench
    .command("quota")
    .description(
      "what a key and a quota cost a call at the gateway, and how exactly two gateways keep a limit together, through HTTP",
    )
    .option("--seconds <n>", "of each part", whole, 10)
    .addOption(
      new Option("--rate <n...>", "calls a second whose checks are measured")
        .argParser((text, before: number[] | undefined) => [
          ...(before === RATES || !before ? [] : before),
          whole(text),
        ])
        .default(RATES, RATES.join(", ")),
    )
    .option("--limit <n>", "calls a second that are allowed in the last part", whole, 1000)
    .option("--json", "print JSON for scripts")
    .action(quota);
};

async function quota({ seconds, rate, limit, json }: QuotaBenchCommandOptions): Promise<void> {
  const { benchQuota } = await import("../bench/quota.ts");
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const report = await benchQuota({
    seconds,
    rates: rate,
    limitPerSecond: limit,
    signal: abort.signal,
    onProgress: (text) => void process.stderr.write(`${text}\n`),
  });
  if (json) printJson(report);
  else {
    const { checks, exact } = report;
    const right = (title: string) => ({ title, right: true });
    const show = (value: number | null): string => ms(value ?? undefined);
    const cellsOf = ({ n, p50_ms, p90_ms, p99_ms, max_ms }: Distribution): string[] => [
      String(n),
      ...[p50_ms, p90_ms, p99_ms, max_ms].map(show),
    ];
    process.stdout.write(
      table(
        [{ title: "KEY AND QUOTA (ms)" }, ...["n", "p50", "p90", "p99", "max"].map(right)],
        checks.flatMap(({ ratePerSecond, check, round_trip: roundTrip }) => [
          [`${ratePerSecond} a second: until the call is let in`, ...cellsOf(check)],
          ["  an empty round trip to Redis, then", ...cellsOf(roundTrip)],
        ]),
      ),
    );
    const titles = ["seconds", "offered", "admitted", "refused", "expected", "error %"];
    const cells = [exact.seconds, exact.offered, exact.admitted, exact.refused, exact.expected];
    process.stdout.write(
      table(
        [{ title: "TWO GATEWAYS" }, ...titles.map(right)],
        [
          [
            `${exact.limitPerSecond} a second, ${exact.burst} at once`,
            ...cells.map(String),
            exact.errorPercent.toFixed(3),
          ],
        ],
      ),
    );
    if (exact.dropped > 0)
      process.stdout.write(
        `${exact.dropped} calls were due while too many waited, and were not sent.\n`,
      );
  }
  const [failure] = Object.entries(report.firstFailures);
  if (abort.signal.aborted) process.exitCode = EXIT.interrupted;
  else if (failure)
    throw new Failure(
      `A call of the part ${failure[0]} failed: ${failure[1]}.`,
      "See the machine's load; with fewer calls, --limit 200, it may do.",
    );
}
