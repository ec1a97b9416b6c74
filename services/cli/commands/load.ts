import { type Command, InvalidArgumentError, Option } from "commander";
import type { Path } from "#contracts/function";
import type { Scenario, Settings } from "#loadtests/lib/plan";
import { parseDuration, wrongDuration } from "#loadtests/lib/settings";
import { SCENARIOS } from "#loadtests/plans/index";
import { EXIT, Failure } from "../failure.ts";
import type { LoadReport } from "../load/report.ts";
import type { ReportFiles } from "../load/report-files.ts";
import type { Rows } from "../load/words.ts";
import { printJson, table } from "../terminal/table.ts";
import { forService, type ServiceOptions } from "./service-options.ts";

interface LoadCommandOptions extends ServiceOptions {
  list?: boolean;
  duration?: number;
  vus?: number;
  rate?: number;
  isolation?: Path;
  baseline?: string;
  ab?: string;
  out?: string;
  failuresOnly?: boolean;
}

function duration(text: string): number {
  const found = parseDuration(text);
  if (found !== undefined) return found;
  throw new InvalidArgumentError("Write it like 10s, 2500ms or 2m.");
}

const wholeUpTo =
  (most: number) =>
  (text: string): number => {
    const value = /^\d{1,6}$/.test(text) ? Number(text) : 0;
    if (value >= 1 && value <= most) return value;
    throw new InvalidArgumentError(`A whole number from 1 to ${most} is needed.`);
  };

export const registerLoad = (program: Command): void => {
  forService(
    program
      .command("load")
      .description(
        "load a service with one of the scenarios by k6 and write a report; starts a service, and builds k6, when there is none",
      )
      .argument("[scenario]", "see --list")
      .option("--list", "name the scenarios and end")
      .option("--duration <time>", "like 10s or 2m; default: the scenario's", duration)
      .option("--vus <clients>", "callers at once; for a storm, functions", wholeUpTo(500))
      .option("--rate <per second>", "requests per second at the highest", wholeUpTo(20_000))
      .addOption(
        new Option("--isolation <path>", "which path is asked for").choices([
          "container",
          "microvm",
        ]),
      )
      .option("--ab <url>", "a second service on this machine, called in turn with the first")
      .option("--baseline <file>", "an earlier report's .json to compare with, or last")
      .option("--out <folder>", "where reports are written (default: .cloister/load/<scenario>)")
      .option("--failures-only", "apply no thresholds on times"),
  )
    .addHelpText(
      "after",
      "\nExits with 1 when a threshold is crossed or the service goes away. For --ab set CLOISTER_AB_KEY, and CLOISTER_AB_ADMIN_KEY where tenants are made.\nk6 is CLOISTER_K6, or the one in PATH, or built once with Go. Requests go to this machine only.",
    )
    .action(load);
};

async function load(name: string | undefined, options: LoadCommandOptions): Promise<void> {
  if (options.list) return list(options.json);
  const scenario = scenarioOf(name);
  const settings = settingsOf(scenario, options);
  const { makeReportFolder, readBaseline, reportFolder, writeReport } = await import(
    "../load/report-files.ts"
  );
  const folder = reportFolder(scenario.name, options.out);
  makeReportFolder(folder);
  const baseline =
    options.baseline === undefined
      ? undefined
      : readBaseline(options.baseline, scenario.name, folder);
  const { runLoad } = await import("../load/run-load.ts");
  const abort = new AbortController();
  const onSignal = (): void => abort.abort();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal);
  const terminal = process.stderr.isTTY === true;
  const report = await runLoad({
    scenario,
    settings,
    failuresOnly: options.failuresOnly === true,
    signal: abort.signal,
    tell: (sentence) => void process.stderr.write(`${sentence}\n`),
    onProgress({ ok, refused, failed, elapsedMs }) {
      if (!terminal) return;
      const line = `${scenario.name}: ${(elapsedMs / 1000).toFixed(0)} s, ${ok} right, ${refused} refused, ${failed} failed`;
      process.stderr.write(`\r\x1b[K${line}`);
    },
    ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }),
    ...(options.ab === undefined ? {} : { against: secondService(options.ab) }),
    ...(baseline === undefined ? {} : { baseline }),
  });
  if (terminal) process.stderr.write("\r\x1b[K");
  const files = writeReport(report, folder);
  if (options.json) {
    const { summaryOf } = await import("../load/summary.ts");
    printJson(summaryOf(report, files));
  } else await print(report, files);
  await finish(report);
}

function list(json: boolean | undefined): void {
  if (json) {
    printJson({
      scenarios: SCENARIOS.map(({ name, shows, durationMs, longestMs, heeds }) => ({
        ...{ name, shows, durationMs, longestMs, heeds },
      })),
    });
    return;
  }
  const rows = SCENARIOS.map(({ name, shows, durationMs }) => [
    name,
    `${durationMs / 1000} s`,
    shows,
  ]);
  const columns = [{ title: "SCENARIO" }, { title: "TAKES", right: true }, { title: "SHOWS" }];
  process.stdout.write(table(columns, rows));
}

function scenarioOf(name: string | undefined): Scenario {
  const found = SCENARIOS.find((one) => one.name === name);
  if (found) return found;
  throw new Failure(
    name === undefined ? "Which scenario?" : `There is no scenario ${name}.`,
    `Choose from ${SCENARIOS.map((one) => one.name).join(", ")}.`,
    EXIT.usage,
  );
}

/** A setting that a scenario would ignore is refused: its report would claim something else than was run. */
function settingsOf(scenario: Scenario, options: LoadCommandOptions): Settings {
  const { vus: clients, rate, isolation, duration = scenario.durationMs } = options;
  const given = { clients, rate, isolation };
  for (const [setting, value] of Object.entries(given)) {
    if (value === undefined || scenario.heeds.includes(setting as keyof typeof given)) continue;
    const option = setting === "clients" ? "--vus" : `--${setting}`;
    throw new Failure(
      `${scenario.name} has no use for ${option}.`,
      `It heeds ${scenario.heeds.map((one) => (one === "clients" ? "--vus" : `--${one}`)).join(", ")}.`,
      EXIT.usage,
    );
  }
  const wrong = wrongDuration(scenario, duration);
  if (wrong) throw new Failure(wrong, "Choose another --duration.", EXIT.usage);
  return {
    durationMs: duration,
    ...(clients === undefined ? {} : { clients }),
    ...(rate === undefined ? {} : { rate }),
    ...(isolation === undefined ? {} : { isolation }),
  };
}

function secondService(url: string): { url: string; key: string; adminKey: string | undefined } {
  const key = process.env.CLOISTER_AB_KEY;
  if (key === undefined) {
    throw new Failure(
      "The second service's key is not known.",
      "Set CLOISTER_AB_KEY to the key in its credentials.json.",
      EXIT.usage,
    );
  }
  return { url: url.replace(/\/+$/, ""), key, adminKey: process.env.CLOISTER_AB_ADMIN_KEY };
}

async function print(report: LoadReport, files: ReportFiles): Promise<void> {
  const words = await import("../load/words.ts");
  const write = ({ columns, rows }: Rows): void => {
    if (rows.length > 0) process.stdout.write(`${table(columns, rows)}\n`);
  };
  for (const sentence of words.sentences(report)) process.stdout.write(`${sentence}\n`);
  process.stdout.write("\n");
  write(words.groupRows(report));
  write(words.stepRows(report));
  write(words.ratioRows(report.versus));
  if (report.baseline) {
    process.stdout.write(`Against ${report.baseline.beganAt}, as a trend:\n`);
    write(words.ratioRows(report.baseline.ratios));
  }
  for (const { reason, count } of report.failures)
    process.stdout.write(`failed: ${count} times ${reason}\n`);
  write(words.thresholdRows(report));
  process.stdout.write(`report: ${files.html}\n        ${files.json}\n`);
}

async function finish(report: LoadReport): Promise<void> {
  if (report.early) {
    const { earlySentence } = await import("../load/words.ts");
    const interrupted = report.early.why === "interrupted";
    throw new Failure(
      earlySentence(report),
      "The report has what was measured until then.",
      interrupted ? EXIT.interrupted : EXIT.failed,
    );
  }
  const crossed = report.thresholds.filter((one) => one.crossed);
  if (crossed.length === 0) return;
  const rules = crossed.map(({ rule, value }) => `${rule} (measured ${value ?? "nothing"})`);
  throw new Failure(
    `${crossed.length} threshold${crossed.length === 1 ? " was" : "s were"} crossed: ${rules.join("; ")}.`,
    "See the report for when and on which path.",
  );
}
