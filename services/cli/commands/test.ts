import { type Command, Option } from "commander";
import { STEPS } from "../checks/steps.ts";
import { EXIT, Failure } from "../failure.ts";
import { green, red, table } from "../terminal/table.ts";

interface TestOptions {
  only?: string[];
  list?: boolean;
}

export const registerTest = (program: Command): void => {
  program
    .command("test")
    .description("all tests; the last line says how many passed and failed")
    .addOption(
      new Option("--only <step...>", "these steps only").choices(STEPS.map(({ name }) => name)),
    )
    .option("--list", "name the steps and end")
    .action(async (options: TestOptions) => {
      if (options.list) {
        const rows = STEPS.map(({ name, what }) => [name, what]);
        process.stdout.write(table([{ title: "STEP" }, { title: "WHAT" }], rows));
        return;
      }
      process.exitCode = await runSteps(options.only);
    });
};

function sentenceOf(error: unknown): string {
  if (error instanceof Failure) return `${error.message}\n  ${error.remedy}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

async function runSteps(only: string[] | undefined): Promise<number> {
  const steps = STEPS.filter(({ name }) => only === undefined || only.includes(name));
  const sum = { passed: 0, failed: 0, skipped: 0 };
  const broken: string[] = [];
  const prepared = new Map(steps.map(({ name, prepare }) => [name, prepare?.()]));
  // Whoever awaits it says what went wrong.
  for (const one of prepared.values()) one?.catch(() => {});
  for (const [index, step] of steps.entries()) {
    const began = performance.now();
    process.stdout.write(`[${index + 1}/${steps.length}] ${step.name}: ${step.what} …\n`);
    let outcome: Awaited<ReturnType<typeof step.run>>;
    try {
      await prepared.get(step.name);
      outcome = await step.run((line) => process.stdout.write(`        ${line}\n`));
    } catch (error) {
      const output = sentenceOf(error);
      outcome = { passed: 0, failed: 1, skipped: 0, output };
    }
    sum.passed += outcome.passed;
    sum.failed += outcome.failed;
    sum.skipped += outcome.skipped;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const counts = `${outcome.passed} passed, ${outcome.failed} failed${outcome.skipped > 0 ? `, ${outcome.skipped} skipped` : ""}`;
    const good = outcome.failed === 0;
    if (!good) broken.push(step.name);
    if (!good || outcome.skipped > 0) process.stdout.write(`${outcome.output.trimEnd()}\n`);
    process.stdout.write(`      ${good ? green("ok") : red("FAILED")} ${counts} (${seconds} s)\n`);
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
