import { globSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { checkImports } from "./import-direction.ts";
import { runNodeTests } from "./node-tests.ts";
import { type Outcome, runCheck, runProgram } from "./run-check.ts";

export interface Step {
  name: string;
  what: string;
  run(tell: (line: string) => void): Promise<Outcome>;
}

const bin = (name: string): string => join(PROJECT_ROOT, "node_modules/.bin", name);

/** Files with tests. Those that end in .e2e.test.ts start a whole instance. */
export function testFiles(kind: "unit" | "e2e"): string[] {
  return globSync("{services,runtime,infra,migrations}/**/*.test.ts", {
    cwd: PROJECT_ROOT,
    exclude: (path) => path.endsWith("node_modules"),
  })
    .filter((path) => path.endsWith(".e2e.test.ts") === (kind === "e2e"))
    .sort()
    .map((path) => join(PROJECT_ROOT, path));
}

async function cargoTests(): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, output: "" };
  const args = ["test", "--release", "--workspace", "--no-fail-fast"];
  const { code, output } = await runProgram("cargo", args);
  outcome.output = output;
  for (const [, passed, failed, ignored] of output.matchAll(
    /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm,
  )) {
    outcome.passed += Number(passed);
    outcome.failed += Number(failed);
    outcome.skipped += Number(ignored);
  }
  // It did not build, or a test ended the process.
  if (code !== 0 && outcome.failed === 0) outcome.failed = 1;
  return outcome;
}

/** Every check there is, the quick ones first. */
export const STEPS: readonly Step[] = [
  {
    name: "types",
    what: "TypeScript's types",
    run: () => runCheck(bin("tsc"), ["--noEmit", "-p", "."]),
  },
  {
    name: "lint",
    what: "lint and format of TypeScript and JSON",
    run: () => runCheck(bin("biome"), ["check", "--error-on-warnings"]),
  },
  { name: "imports", what: "which way imports point", run: checkImports },
  {
    name: "rustfmt",
    what: "format of Rust",
    run: () => runCheck("cargo", ["fmt", "--all", "--check"]),
  },
  {
    name: "clippy",
    what: "lint of Rust, warnings are errors",
    run: () =>
      runCheck("cargo", [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
      ]),
  },
  { name: "cargo", what: "tests in Rust", run: cargoTests },
  {
    name: "unit",
    what: "tests in TypeScript beside the code",
    run: (tell) => runNodeTests(testFiles("unit"), 2, tell),
  },
  {
    name: "e2e",
    what: "tests of the whole service",
    // One at a time: each file starts an instance.
    run: (tell) => runNodeTests(testFiles("e2e"), 1, tell),
  },
];
