import { type Command, Option } from "commander";
import { StepBeside } from "../checks/step-beside.ts";
import { STEPS, STOCK_KVM, type Step } from "../checks/steps.ts";
import { EXIT } from "../failure.ts";
import { green, red, table } from "../terminal/table.ts";

interface TestOptions {
  only?: string[];
  stockKvm?: boolean;
  list?: boolean;
}

export const registerTest = (program: Command): void => {
  program
    .command("test")
    .description("all tests; the last line says how many passed and failed")
    .addOption(
      new Option("--only <step...>", "these steps only").choices(STEPS.map(({ name }) => name)),
    )
    .addOption(
      new Option(
        "--stock-kvm",
        "in place of all: every test of micro-VMs that can run on stock KVM, in emulated machines",
      ).conflicts("only"),
    )
    .option("--list", "name the steps and end")
    .action(async (options: TestOptions) => {
      if (options.list) {
        const rows = STEPS.map(({ name, what }) => [name, what]);
        process.stdout.write(table([{ title: "STEP" }, { title: "WHAT" }], rows));
        return;
      }
      process.exitCode = await runSteps(options.stockKvm ? [STOCK_KVM] : options.only);
    });
};

/** Steps that run beside others, by name, and when they began. */
type Beside = Map<string, { step: StepBeside; began: number }>;

/** Starts what may run beside the steps from `index` on. */
function startBeside(steps: readonly Step[], index: number, beside: Beside): void {
  const toCome = steps.slice(index);
  for (const { name, besideAfter } of toCome) {
    if (besideAfter === undefined || beside.has(name)) continue;
    if (toCome.some((step) => step.name === besideAfter)) continue;
    beside.set(name, { step: new StepBeside(name), began: performance.now() });
  }
}

async function runSteps(only: string[] | undefined): Promise<number> {
  const steps = STEPS.filter(({ name, onlyIfNamed }) => only?.includes(name) ?? !onlyIfNamed);
  const sum = { passed: 0, failed: 0, skipped: 0 };
  const broken: string[] = [];
  const beside: Beside = new Map();
  for (const [index, step] of steps.entries()) {
    startBeside(steps, index, beside);
    const under = beside.get(step.name);
    const began = under?.began ?? performance.now();
    process.stdout.write(`[${index + 1}/${steps.length}] ${step.name}: ${step.what} …\n`);
    let outcome: Awaited<ReturnType<typeof step.run>> & { endedAt?: number };
    try {
      const tell = (line: string) => process.stdout.write(`        ${line}\n`);
      outcome = await (under ? under.step.outcome(tell) : step.run(tell));
    } catch (error) {
      const output = error instanceof Error ? (error.stack ?? error.message) : String(error);
      outcome = { passed: 0, failed: 1, skipped: 0, output };
    }
    sum.passed += outcome.passed;
    sum.failed += outcome.failed;
    sum.skipped += outcome.skipped;
    const seconds = (((outcome.endedAt ?? performance.now()) - began) / 1000).toFixed(1);
    const counts = `${outcome.passed} passed, ${outcome.failed} failed${outcome.skipped > 0 ? `, ${outcome.skipped} skipped` : ""}`;
    const good = outcome.failed === 0;
    if (!good) broken.push(step.name);
    if (!good || outcome.skipped > 0) process.stdout.write(`${outcome.output.trimEnd()}\n`);
    process.stdout.write(
      `      ${good ? green("ok") : red("FAILED")} ${counts} (${seconds} s${under ? ", beside others" : ""})\n`,
    );
  }
  if (broken.length > 0) {
    process.stdout.write(
      `\nFailed: ${broken.join(", ")}. Run one alone with ./cloister test --only <step>.\n`,
    );
  }
  const skipped = sum.skipped > 0 ? `, ${sum.skipped} skipped` : "";
  process.stdout.write(`${sum.passed} passed, ${sum.failed} failed${skipped}\n`);
  return sum.failed === 0 && sum.passed > 0 ? EXIT.ok : EXIT.failed;
}
