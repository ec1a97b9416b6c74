import { globSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { Failure } from "../failure.ts";
import { requireK6 } from "../load/k6-program.ts";
import { addCargoResults } from "./cargo-results.ts";
import { checkImports } from "./import-direction.ts";
import { runNodeTests } from "./node-tests.ts";
import { type Outcome, runCheck, runProgram } from "./run-check.ts";
import { stockMachineTests } from "./stock-machine.ts";

export interface Step {
  name: string;
  what: string;
  /** It runs in a process of its own beside the steps that follow this one, with what they leave of the processors. */
  besideAfter?: string;
  /** No part of all tests: it takes long, and the others do the same on a choice. */
  onlyIfNamed?: boolean;
  run(tell: (line: string) => void): Promise<Outcome>;
}

/** In place of a step's name: before all of them. */
const START = "";

const bin = (name: string): string => join(PROJECT_ROOT, "node_modules/.bin", name);

/** Files with tests. Those that end in .e2e.test.ts start a whole instance, those in .load.test.ts send it load, those in .testvm.test.ts boot the test machine. */
export function testFiles(kind: "unit" | "e2e" | "testvm" | "load"): string[] {
  return globSync("{services,runtime,infra,loadtests,migrations,examples,workloads}/**/*.test.ts", {
    cwd: PROJECT_ROOT,
    exclude: (path) => path.endsWith("node_modules"),
  })
    .filter((path) => (/[.](e2e|testvm|load)[.]test[.]ts$/.exec(path)?.[1] ?? "unit") === kind)
    .sort()
    .map((path) => join(PROJECT_ROOT, path));
}

const CARGO_TEST = ["test", "--release", "--workspace"] as const;

async function cargoTests(): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, output: "" };
  const { code, output } = await runProgram("cargo", [...CARGO_TEST, "--no-fail-fast"]);
  outcome.output = output;
  addCargoResults(output, outcome);
  // It did not build, or a test ended the process.
  if (code !== 0 && outcome.failed === 0) outcome.failed = 1;
  return outcome;
}

/** Whose Rust tests run once more in the test machine: they do other things there than on a host with cgroup v1, or with a KVM of another kind. */
const STOCK_MACHINE_CRATES = [
  "runtime/container",
  "vmm/crates/memory",
  "vmm/crates/hypervisor",
  "vmm/crates/monitor",
];

async function testMachine(tell: (line: string) => void): Promise<Outcome> {
  const machine = await runNodeTests(testFiles("testvm"), 1, tell);
  const crates = await stockMachineTests(STOCK_MACHINE_CRATES, "chosen", tell);
  return {
    passed: machine.passed + crates.passed,
    failed: machine.failed + crates.failed,
    skipped: machine.skipped + crates.skipped,
    output: machine.output + crates.output,
  };
}

/** Name of the step that `test --stock-kvm` runs. */
export const STOCK_KVM = "stock-kvm";

async function findOrBuildK6(): Promise<Outcome> {
  try {
    const { path, version } = await requireK6({ niceness: 19, tell: () => {} });
    return { passed: 1, failed: 0, skipped: 0, output: `k6 ${version} ${path}\n` };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const output = `${error.message}\n  ${error.remedy}\n`;
    return { passed: 0, failed: 1, skipped: 0, output };
  }
}

async function loadTests(tell: (line: string) => void): Promise<Outcome> {
  // Where this step runs alone: a test does not wait for as long as a build takes.
  const k6 = await findOrBuildK6();
  return k6.failed > 0 ? k6 : runNodeTests(testFiles("load"), 1, tell);
}

/** Every check there is; what runs beside others is awaited at its place. */
export const STEPS: readonly Step[] = [
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
  {
    name: "types",
    what: "TypeScript's types",
    besideAfter: START,
    run: () => runCheck(bin("tsc"), ["--noEmit", "-p", "."]),
  },
  {
    name: "lint",
    what: "lint and format of TypeScript and JSON",
    besideAfter: START,
    run: () => runCheck(bin("biome"), ["check", "--error-on-warnings"]),
  },
  { name: "imports", what: "which way imports point", besideAfter: START, run: checkImports },
  {
    name: "programs",
    what: "tests in Rust are built",
    run: () => runCheck("cargo", [...CARGO_TEST, "--no-run"]),
  },
  { name: "cargo", what: "tests in Rust", run: cargoTests },
  {
    name: "unit",
    what: "tests in TypeScript beside the code",
    run: (tell) => runNodeTests(testFiles("unit"), 2, tell, "in memory"),
  },
  {
    name: "e2e",
    what: "tests of the whole service",
    // Each file starts an instance of its own, and waits for much: ends, restarts, leases.
    run: (tell) => runNodeTests(testFiles("e2e"), 2, tell),
  },
  {
    name: "k6",
    what: "k6 is found, or built",
    // Its build needs nothing of the other steps, and only the next one needs it; it has what nobody else wants (niceness).
    besideAfter: START,
    run: findOrBuildK6,
  },
  {
    name: "load",
    what: "each load scenario for a moment by k6, against a real service",
    run: loadTests,
  },
  {
    name: "testvm",
    what: "tests on stock KVM and cgroup v2 alone, in an emulated machine",
    // Its programs are built then, and what emulates the machine is in nobody's way.
    besideAfter: "programs",
    run: testMachine,
  },
  {
    name: STOCK_KVM,
    what: "every test of micro-VMs that can run on stock KVM, in emulated machines",
    onlyIfNamed: true,
    run: (tell) => stockMachineTests(STOCK_MACHINE_CRATES, "all", tell),
  },
];
