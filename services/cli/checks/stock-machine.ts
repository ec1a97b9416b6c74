import { globSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import type { Placed } from "#testvm/job";
import { type MachineResult, runInTestMachine } from "#testvm/machine";
import { addCargoResults } from "./cargo-results.ts";
import { compileGuestPrograms, type GuestPrograms } from "./guest-programs.ts";
import { type Outcome, runProgram } from "./run-check.ts";

/** What cargo tells of a program it built (cargo-build(1), --message-format=json). */
interface Built {
  executable: string;
  isTest: boolean;
  /** Where cargo starts the crate's tests. */
  crateFolder: string;
}

/** For the test programs of one machine together, seconds: they are emulated, about ten times slower than here, and run beside others. */
const BOUND_SECONDS: Record<Extent, number> = { chosen: 1800, all: 4 * 3600 };
/**
 * Longer than a guest that works takes there, seconds: `hostile/machine.c` and `exhaustion.c` leave the guest 139,000 and 290,000 times, at up to a millisecond
 * each where the machine's processor is not its own.
 */
const GUESTS_HANG_AFTER = "1800";
/** Of each runtime, instead of 150: each takes seconds there. */
const CLONES = "10";
const MEMORY_MIB = 2048;
/** Built by set-up, so they are there whenever tests run. */
const IMAGES = join(PROJECT_ROOT, ".cloister/images");
/** Executed by the containers' own tests, and no part of their crate. */
const MONITOR = join(PROJECT_ROOT, "target/release/cloister-vm");

/** The tests of frozen guests start one in another time namespace, which busybox's does not know. */
const UNSHARE = "/usr/bin/unshare";

/** Never run there: it asks the host's kernel about a process's calls, whatever KVM is, and compiles what it runs. */
const OUTSIDE = /^host_calls-[0-9a-f]+$/;

/** Run there only when all is asked for (`test --stock-kvm`), because they take long. */
const ONLY_IF_ALL =
  /^(guests|hostile|programs|frozen|inlet|ahead|alike|snapshots|resets|hostile_resets|uniqueness)-[0-9a-f]+$/;

/** Those that take longest there, longest first: where all run, each has a machine of its own, as many at once as there are processors. */
const LONGEST = ["programs", "hostile", "resets", "guests", "hostile_resets"];
/** Machines at once, whose memory the host must have. */
const MACHINES_AT_ONCE = 4;

export type Extent = "chosen" | "all";

/** $1, $2, ...: a folder and the test program to start in it. A program that fails does not keep the next ones from running. Says how long each took. */
const RUN_EACH = `
code=0
while [ $# -gt 0 ]; do
  began=$(cut -d. -f1 /proc/uptime)
  mkdir -p "$1" && cd "$1" && "$2" || code=1
  echo "took $(($(cut -d. -f1 /proc/uptime) - began)) s: \${2##*/}"
  shift 2
done
exit $code
`;

/**
 * Runs the Rust tests of crates in the test machine, which has cgroup v2 alone and stock KVM: the programs cargo has built here, in one boot or, if all are
 * wanted, in several. What they read below runtime/ and the images they find at the same paths.
 */
export async function stockMachineTests(
  crates: readonly string[],
  extent: Extent,
  tell: (line: string) => void,
): Promise<Outcome> {
  // All, though some are enough: of a choice cargo would build what they share anew, with other features.
  const { code, output } = await runProgram("cargo", [
    "test",
    "--release",
    "--workspace",
    "--no-run",
    "--message-format=json",
  ]);
  const folders = new Set(crates.map((crate) => join(PROJECT_ROOT, crate)));
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, output };
  const built = output
    .split("\n")
    .flatMap(parseArtifact)
    .filter(({ crateFolder }) => folders.has(crateFolder));
  const runsThere = (program: string) =>
    !OUTSIDE.test(program) && (extent === "all" || !ONLY_IF_ALL.test(program));
  const tests = built.filter(({ isTest, executable }) => isTest && runsThere(basename(executable)));
  if (code !== 0 || tests.length === 0) return { ...outcome, failed: 1 };

  const guests = await compileGuestPrograms(tests.map(({ executable }) => executable));
  if ("failure" in guests) return { ...outcome, failed: 1, output: guests.failure };
  using programs = guests;
  outcome.output = "";

  const waiting = extent === "all" ? batches(tests) : [tests];
  const failure = new AbortController();
  const machine = async () => {
    for (let batch = waiting.shift(); batch; batch = waiting.shift()) {
      const told = await runBatch(batch, { built, programs, extent, tell, signal: failure.signal });
      outcome.output += told.printed;
      const before = outcome.passed + outcome.failed;
      const failedBefore = outcome.failed;
      addCargoResults(told.stdout, outcome);
      // A test ended its process, or none ran at all.
      const said = outcome.failed > failedBefore;
      if ((told.exitCode !== 0 && !said) || outcome.passed + outcome.failed === before) {
        outcome.failed += 1;
      }
    }
  };
  const machines = Math.min(waiting.length, availableParallelism(), MACHINES_AT_ONCE);
  const ended = await Promise.allSettled(
    Array.from({ length: machines }, () =>
      machine().catch((error: unknown) => {
        failure.abort(error);
        throw error;
      }),
    ),
  );
  for (const one of ended) if (one.status === "rejected") throw failure.signal.reason;
  return outcome;
}

/** What runs in one boot each, in the order in which they are to begin. */
export function batches<Test extends { executable: string }>(tests: readonly Test[]): Test[][] {
  const place = ({ executable }: Test) =>
    LONGEST.indexOf(basename(executable).replace(/-[0-9a-f]+$/, ""));
  const alone = tests.filter((test) => place(test) >= 0).sort((a, b) => place(a) - place(b));
  const others = tests.filter((test) => place(test) < 0);
  return [...alone.map((test) => [test]), ...(others.length > 0 ? [others] : [])];
}

interface Surroundings {
  /** Everything cargo built: tests run some of it. */
  built: readonly Built[];
  programs: GuestPrograms;
  extent: Extent;
  tell: (line: string) => void;
  signal: AbortSignal;
}

/** One boot: test programs one after another. */
async function runBatch(
  tests: readonly Built[],
  { built, programs, extent, tell, signal }: Surroundings,
): Promise<MachineResult & { stdout: string; printed: string }> {
  // Apart, so that a line of one is never cut by the other.
  let stdout = "";
  let stderr = "";
  let told = 0;
  const taken = () =>
    [...stdout.matchAll(/^took (\d+ s): (.+)-[0-9a-f]+$/gm)].map(
      ([, took, program]) => `${program} ${took}`,
    );
  const newlyTaken = () => {
    const lines = taken().slice(told);
    told += lines.length;
    return lines;
  };
  const manifests = globSync("*.json", { cwd: IMAGES }).map((name) => join(IMAGES, name));
  const inPlace = (path: string): Placed => ({ host: path, guest: path });
  const result = await runInTestMachine(
    {
      command: [
        "sh",
        "-c",
        RUN_EACH,
        "sh",
        ...tests.flatMap(({ crateFolder, executable }) => [crateFolder, executable]),
      ],
      env: {
        RUST_BACKTRACE: "1",
        CLOISTER_GUESTS_HANG_AFTER: GUESTS_HANG_AFTER,
        CLOISTER_CLONES: CLONES,
        ...programs.env,
      },
      files: [...built.map(({ executable }) => executable), MONITOR, UNSHARE, ...manifests].map(
        inPlace,
      ),
      shares: [
        ...[
          join(PROJECT_ROOT, "runtime"),
          join(PROJECT_ROOT, "vmm/tests"),
          join(IMAGES, "layers"),
        ].map(inPlace),
        ...programs.shares,
      ],
    },
    {
      boundSeconds: BOUND_SECONDS[extent],
      memoryMiB: MEMORY_MIB,
      onStdout: (chunk) => {
        stdout += chunk.toString("utf8");
        // All of them take half an hour or more: each is told of as it ends.
        if (extent === "all") for (const line of newlyTaken()) tell(line);
      },
      onStderr: (chunk) => {
        stderr += chunk.toString("utf8");
      },
      tell,
      signal,
    },
  );
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  const size = tests.length === 1 ? "1 program" : `${tests.length} programs`;
  tell(`boot ${seconds(result.bootMs)} s, all ${seconds(result.totalMs)} s: ${size}`);
  if (extent === "chosen") tell(taken().join(", "));
  return { ...result, stdout, printed: `${stdout}${stderr}` };
}

function parseArtifact(line: string): Built[] {
  if (!line.startsWith('{"reason":"compiler-artifact"')) return [];
  const { executable, profile, manifest_path, target } = JSON.parse(line);
  if (typeof executable !== "string" || target?.kind?.includes("custom-build")) return [];
  return [{ executable, isTest: profile.test === true, crateFolder: dirname(manifest_path) }];
}
