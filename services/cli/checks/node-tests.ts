import { relative } from "node:path";
import { run } from "node:test";
import { inspect } from "node:util";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import type { Outcome } from "./run-check.ts";

interface Report {
  name: string;
  file?: string | undefined;
  line?: number | undefined;
  skip?: string | boolean | undefined;
  todo?: string | boolean | undefined;
  details: { type?: string | undefined; error?: Error };
}

/** A file that takes longer is a failure, ms: a multiple of what the slowest takes beside others, and short beside what all take together. */
const FILE_BOUND_MS = 300_000;

/**
 * Runs test files, each in a process of its own, `concurrency` at a time. Counts tests, not suites; a file that cannot be loaded is a failed test. `tell` hears
 * of each file as it ends.
 */
export async function runNodeTests(
  files: string[],
  concurrency: number,
  tell: (line: string) => void,
): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, output: "" };
  const perFile = new Map<string, { passed: number; failed: number }>();
  const said = new Map<string, string>();
  const add = (text: string): void => {
    outcome.output += `${text}\n`;
  };
  const count = (report: Report, kind: "passed" | "failed"): void => {
    if (report.details.type === "suite") return;
    if (report.skip !== undefined || report.todo !== undefined) {
      outcome.skipped += 1;
      add(`skipped: ${report.name} (${report.skip || report.todo || "no reason given"})`);
      return;
    }
    outcome[kind] += 1;
    const file = report.file ?? "?";
    const known = perFile.get(file) ?? { passed: 0, failed: 0 };
    known[kind] += 1;
    perFile.set(file, known);
  };
  const stream = run({ files, cwd: PROJECT_ROOT, concurrency, timeout: FILE_BOUND_MS });
  stream.on("test:pass", (report) => count(report as Report, "passed"));
  stream.on("test:fail", (data) => {
    const report = data as Report;
    const error = report.details.error as
      | (Error & { failureType?: string; cause?: unknown })
      | undefined;
    // The parent of a test that failed: that one is counted already.
    if (error?.failureType === "subtestsFailed") return;
    // A suite of its own fails by a hook: that is a failure nothing else counts.
    count({ ...report, details: { ...report.details, type: "test" } }, "failed");
    add(`FAILED: ${report.name}`);
    if (report.file) add(`  at ${relative(PROJECT_ROOT, report.file)}:${report.line ?? 1}`);
    add(indent(inspect(error?.cause ?? error, { depth: 4 })));
  });
  for (const event of ["test:stderr", "test:stdout"] as const) {
    stream.on(event, ({ file, message }) => {
      if (file) said.set(file, ((said.get(file) ?? "") + message).slice(-8192));
    });
  }
  stream.on("test:complete", (data) => {
    // The file itself, which comes after all its tests.
    if (data.nesting !== 0 || !data.file || data.name !== data.file) return;
    tell(
      `${(data.details.duration_ms / 1000).toFixed(1).padStart(6)} s  ${relative(PROJECT_ROOT, data.file)}`,
    );
  });
  for await (const _ of stream.resume()) void _;
  for (const [file, counts] of perFile) {
    const text = said.get(file);
    if (counts.failed > 0 && text)
      add(`printed by ${relative(PROJECT_ROOT, file)}:\n${indent(text)}`);
  }
  return outcome;
}

const indent = (text: string): string => text.trimEnd().replaceAll(/^/gm, "    ");
