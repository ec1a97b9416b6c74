import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { messageOf } from "../failure.ts";
import type { Outcome } from "./run-check.ts";
import { makeScratch } from "./scratch.ts";
import { runTestFile } from "./test-file.ts";

/** A file that takes longer is a failure, ms: a multiple of what the slowest takes beside others, and short beside what all take together. */
const FILE_BOUND_MS = 300_000;

/**
 * Runs test files, each in a process of its own, `concurrency` at a time, in their order. Counts tests, not suites; a file that does not come to the end of its
 * tests, or has none, is a failed test. `temporary` says where its temporary files are: in memory, if there is enough, they go with it. What tests are not about
 * is there in any case (CLOISTER_TEST_SCRATCH). `tell` hears of each file as it ends.
 */
export async function runNodeTests(
  files: readonly string[],
  concurrency: number,
  tell: (line: string) => void,
  temporary: "in memory" | "on disk" = "on disk",
): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, output: "" };
  const waiting = [...files];
  using scratch = makeScratch();
  const runOne = async (path: string): Promise<void> => {
    const file = relative(PROJECT_ROOT, path);
    let said = "";
    let heard = 0;
    const fail = (name: string, line: number, text: string): void => {
      outcome.failed += 1;
      said += `FAILED: ${name}\n  at ${file}:${line}\n${indent(text)}\n`;
    };
    const own = join(scratch.folder, String(files.indexOf(path)));
    mkdirSync(own);
    // As /tmp is, for tests that go on as another user.
    chmodSync(own, 0o1777);
    const env = {
      CLOISTER_TEST_SCRATCH: own,
      ...(temporary === "in memory" ? { TMPDIR: own } : {}),
    };
    const { failure, printed, ms } = await runTestFile(
      path,
      { bound: fileBound(), env },
      (report) => {
        heard += 1;
        if (report.skipped !== undefined) {
          outcome.skipped += 1;
          outcome.output += `skipped: ${report.name} (${report.skipped})\n`;
        } else if (report.failure !== undefined) fail(report.name, report.line, report.failure);
        else outcome.passed += 1;
      },
    );
    try {
      rmSync(own, { recursive: true, force: true });
    } catch (error) {
      fail(file, 1, `what it has left cannot be removed: ${messageOf(error)}`);
    }
    if (failure !== undefined) fail(file, 1, failure);
    else if (heard === 0) fail(file, 1, "it has no tests");
    if (said !== "" && printed !== "") said += `printed by ${file}:\n${indent(printed)}\n`;
    outcome.output += said;
    tell(`${(ms / 1000).toFixed(1).padStart(6)} s  ${file}`);
  };
  const lane = async (): Promise<void> => {
    for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) await runOne(path);
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
  return outcome;
}

/** Begins now. */
function fileBound(): AbortSignal {
  const bound = new AbortController();
  const late = new Error(`it took longer than ${FILE_BOUND_MS / 1000} s`);
  setTimeout(() => bound.abort(late), FILE_BOUND_MS).unref();
  return bound.signal;
}

const indent = (text: string): string => text.trimEnd().replaceAll(/^/gm, "    ");
