import type { Command } from "commander";
import { EXIT } from "../failure.ts";
import { hostFacts } from "../host/facts.ts";
import type { Finding } from "../host/finding.ts";
import { confinement, controlGroups, namespaces, overlay, virtualisation } from "../host/kernel.ts";
import { built, programs } from "../host/programs.ts";
import { k6Finding } from "../load/k6-program.ts";
import { green, printJson, red, yellow } from "../terminal/table.ts";

export const registerDoctor = (program: Command): void => {
  program
    .command("doctor")
    .description("what this machine can do; fails when something is missing that the service needs")
    .option("--json", "print JSON for scripts")
    .action(async (options: { json?: boolean }) => {
      const findings = await examine();
      const good = findings.every(({ state, required }) => state === "ok" || !required);
      process.exitCode = good ? EXIT.ok : EXIT.failed;
      if (options.json) return printJson({ ok: good, host: hostFacts(), checks: findings });
      const { cpu, cores, memoryMb, kernel } = hostFacts();
      process.stdout.write(`${cpu}, ${cores} cores, ${memoryMb} MiB, Linux ${kernel}\n\n`);
      const width = Math.max(...findings.map(({ name }) => name.length));
      for (const finding of findings) process.stdout.write(line(finding, width));
      process.stdout.write(
        good
          ? "\nThis machine can run Cloister.\n"
          : "\nSomething is missing that Cloister needs.\n",
      );
    });
};

async function examine(): Promise<Finding[]> {
  const [spaces, layers, walls, tools, k6] = await Promise.all([
    namespaces(),
    overlay(),
    confinement(),
    programs(),
    k6Finding(),
  ]);
  return [
    ...(await virtualisation()),
    ...controlGroups(),
    ...spaces,
    ...walls,
    layers,
    ...tools,
    k6,
    ...built(),
  ];
}

function line({ name, state, detail, required, remedy }: Finding, width: number): string {
  const text = `${name.padEnd(width)}  ${detail}`;
  if (state === "ok") return `${green("ok     ")}  ${text}\n`;
  const label = required ? red("missing") : yellow("missing");
  return `${label}  ${text}\n${" ".repeat(width + 11)}${remedy}\n`;
}
