import { type Command, InvalidArgumentError } from "commander";
import { EXIT, Failure } from "../failure.ts";
import { ms, printJson, table } from "../terminal/table.ts";

interface BootCommandOptions {
  n: number;
  json?: boolean;
  modes?: string[];
}

const count = (text: string): number => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 10_000) return value;
  throw new InvalidArgumentError("A whole number from 1 to 10000 is needed.");
};

export const registerBench = (program: Command): void => {
  const bench = program.command("bench").description("measure sandboxes, without HTTP");
  bench
    .command("boot")
    .description(
      "from the request for a sandbox to the answer of examples/hello, modes interleaved; warm is a call after 20 others",
    )
    .option("-n <rounds>", "measurements of each mode", count, 100)
    .option("--modes <list>", "separated by commas; default: all that can run here", (text) =>
      text.split(","),
    )
    .option("--json", "print JSON for scripts")
    .action(boot);
  bench
    .command("memory")
    .description(
      "private memory of micro-VMs of examples/hello that serve at once: the monitor's own, and the guest's",
    )
    .option(
      "--count <machines>",
      "how many, at least 2 so that what is shared is told apart",
      count,
      2,
    )
    .option("--json", "print JSON for scripts")
    .action(memory);
  for (const name of ["overhead", "density", "throughput"]) {
    bench
      .command(name, { hidden: true })
      .description("not in this version")
      .allowUnknownOption()
      .allowExcessArguments()
      .action(() => {
        throw new Failure(
          `./cloister bench ${name} is not in this version.`,
          "Use ./cloister bench boot or bench memory.",
        );
      });
  }
};

async function memory(options: { count: number; json?: boolean }): Promise<void> {
  const { benchMemory } = await import("../bench/memory.ts");
  const report = await benchMemory(options.count);
  if (options.json) {
    printJson(report);
    return;
  }
  const columns = [
    { title: "MICRO-VM (KiB)" },
    { title: "monitor", right: true },
    { title: "guest", right: true },
  ];
  const rows = report.machines.map((one, index) => [
    String(index + 1),
    String(one.monitor_private_kib),
    String(one.guest_private_kib),
  ]);
  process.stdout.write(table(columns, rows));
}

async function boot(options: BootCommandOptions): Promise<void> {
  const { benchBoot, MODE_NAMES, WARM_UP_ROUNDS } = await import("../bench/boot.ts");
  const unknown = options.modes?.find((name) => !MODE_NAMES.includes(name));
  if (unknown !== undefined) {
    throw new Failure(
      `There is no mode ${unknown}.`,
      `Choose from ${MODE_NAMES.join(", ")}.`,
      EXIT.usage,
    );
  }
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const terminal = process.stderr.isTTY === true;
  if (!options.json) {
    process.stderr.write(
      `${options.n} rounds, after ${WARM_UP_ROUNDS} that are not counted; each runs every mode once.\n`,
    );
  }
  const report = await benchBoot({
    rounds: options.n,
    ...(options.modes ? { modes: options.modes } : {}),
    signal: abort.signal,
    onRound: (done, of) => {
      if (terminal) process.stderr.write(`\rround ${done} of ${of}${done === of ? "\n" : ""}`);
    },
  });
  if (options.json) printJson(report);
  else {
    const { cpu, cores, memoryMb, kernel, cgroup, node } = report.host;
    process.stdout.write(
      `${cpu}, ${cores} cores, ${memoryMb} MiB, Linux ${kernel}, cgroups ${cgroup}, node ${node}\n\n`,
    );
    const columns = ["min", "p50", "p90", "p99", "max"].map((title) => ({ title, right: true }));
    const show = (value: number | null): string => ms(value ?? undefined);
    const rows = report.modes.map((one) => [
      one.mode,
      String(one.n),
      String(one.failures),
      ...[one.min_ms, one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms].map(show),
    ]);
    const heading = [
      { title: "MODE (ms)" },
      { title: "n", right: true },
      { title: "failures", right: true },
    ];
    process.stdout.write(table([...heading, ...columns], rows));
    for (const { mode, reason } of report.unavailable) process.stdout.write(`${mode}: ${reason}\n`);
    for (const [mode, text] of Object.entries(report.firstFailures)) {
      process.stdout.write(`${mode}, first failure: ${text}\n`);
    }
  }
  if (abort.signal.aborted)
    throw new Failure(
      "The benchmark was interrupted.",
      "What is shown is what was measured.",
      EXIT.interrupted,
    );
  if (report.modes.some(({ failures }) => failures > 0)) process.exitCode = EXIT.failed;
}
