import type { Outcome } from "./run-check.ts";

/** Adds to the counts what the closing lines of Rust's test programs say. */
export function addCargoResults(printed: string, outcome: Outcome): void {
  for (const [, passed, failed, ignored] of printed.matchAll(
    /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm,
  )) {
    outcome.passed += Number(passed);
    outcome.failed += Number(failed);
    outcome.skipped += Number(ignored);
  }
}
