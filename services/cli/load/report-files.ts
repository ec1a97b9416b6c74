import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { EXIT, Failure, messageOf } from "../failure.ts";
import { type Baseline, GENERATOR, type LoadReport, parseBaseline } from "./report.ts";
import { reportPage } from "./report-page.ts";

export interface ReportFiles {
  json: string;
  html: string;
}

/** Where reports of a scenario lie: in `out`, else in the project's folder of things it made. */
export const reportFolder = (scenario: string, out?: string): string =>
  out ?? join(PROJECT_ROOT, ".cloister/load", scenario);

/** Names sort by time. `:` is not allowed in file names everywhere. */
const fileName = (report: LoadReport): string =>
  `${report.scenario}-${report.beganAt.replaceAll(":", "-")}`;

/** Makes sure before a run that its report can be written. */
export function makeReportFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new Failure(
      `The folder ${folder} for the report cannot be made: ${messageOf(error)}.`,
      "Name another one with --out.",
      EXIT.usage,
    );
  }
}

export function writeReport(report: LoadReport, folder: string): ReportFiles {
  const base = join(folder, fileName(report));
  const files = { json: `${base}.json`, html: `${base}.html` };
  writeFileSync(files.json, `${JSON.stringify(report)}\n`);
  writeFileSync(files.html, reportPage(report));
  return files;
}

/** The report that --baseline names: a file, or `last` for the newest of the same scenario in the folder. */
export function readBaseline(asked: string, scenario: string, folder: string): Baseline {
  let file = asked;
  if (asked === "last") {
    const names = readdirSync(folder).filter(
      (name) => name.startsWith(`${scenario}-2`) && name.endsWith(".json"),
    );
    const newest = names.sort().at(-1);
    if (newest === undefined) {
      throw new Failure(
        `There is no earlier report of ${scenario} in ${folder}.`,
        "Run it once without --baseline, or name a report's .json file.",
        EXIT.usage,
      );
    }
    file = join(folder, newest);
  }
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new Failure(
      `The baseline ${file} cannot be read: ${messageOf(error)}.`,
      "Name the .json file of an earlier report, or last.",
      EXIT.usage,
    );
  }
  const baseline = parseBaseline(text);
  if (baseline === undefined) {
    throw new Failure(
      `${file} is not a report of a load test.`,
      "Name the .json file that an earlier ./cloister load wrote.",
      EXIT.usage,
    );
  }
  if (baseline.scenario !== scenario) {
    throw new Failure(
      `${file} is a report of ${baseline.scenario}, not of ${scenario}.`,
      "Compare runs of the same scenario.",
      EXIT.usage,
    );
  }
  const { name } = baseline.generator;
  if (name !== GENERATOR) {
    throw new Failure(
      `${file} was measured with ${name}, not with ${GENERATOR}: the difference would be theirs.`,
      "Compare with a report that this command has written.",
      EXIT.usage,
    );
  }
  return baseline;
}
