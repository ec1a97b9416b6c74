import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { TestMachineError } from "./failure.ts";
import type { Placed } from "./job.ts";
import { DEFAULTS, runInTestMachine } from "./machine.ts";

const HELP = `Runs a command in a machine with stock KVM (emulated AMD SVM) and cgroup v2 only: Debian's cloud kernel under QEMU.

Usage: node infra/testvm/run.ts [options] -- command [argument ...]

Options:
  --file HOST[=GUEST]    put a file into the machine, with the libraries it needs if it is a program (default: at the same path)
  --share HOST[=GUEST]   show a folder as it is now, read-only (default: at the same path)
  --env NAME=VALUE       set a variable of the command
  --cwd GUEST            start the command there (default /)
  --memory MIB           memory of the machine (default ${DEFAULTS.memoryMiB})
  --cpus N               emulated processors (default ${DEFAULTS.cpus})
  --timeout SECONDS      end the machine after that time (default ${DEFAULTS.boundSeconds})
  --console              show what the kernel prints, on stderr
  --times                say on stderr how long the boot and the whole run took
  --help                 this text

/ and /tmp are writable and in memory; busybox's commands are there. Standard input is empty.
Exit code: the command's own (128 + signal if one ended it); 125 the machine failed or its time was over, 2 used wrongly, 130 interrupted.
Needs Debian and root; installs qemu-system-x86 and erofs-utils when they are missing. The kernel is only unpacked, into .cloister/testvm.
`;

const EXIT = { usage: 2, machine: 125, interrupted: 130 } as const;

class UsageError extends Error {}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        file: { type: "string", multiple: true, default: [] },
        share: { type: "string", multiple: true, default: [] },
        env: { type: "string", multiple: true, default: [] },
        cwd: { type: "string" },
        memory: { type: "string" },
        cpus: { type: "string" },
        timeout: { type: "string" },
        console: { type: "boolean", default: false },
        times: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function placed(text: string): Placed {
  const at = text.lastIndexOf("=");
  const host = resolve(at < 0 ? text : text.slice(0, at));
  return { host, guest: at < 0 ? host : text.slice(at + 1) };
}

function variable(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new UsageError(`--env ${text} is not NAME=VALUE.`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** A whole number within bounds, or nothing when the option was not given. */
function number(name: string, text: string | undefined, least: number, most: number) {
  if (text === undefined) return undefined;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new UsageError(`--${name} ${text} is not a whole number from ${least} to ${most}.`);
}

async function main(): Promise<number> {
  const { values, positionals } = readArguments();
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (positionals.length === 0) throw new UsageError("There is no command. Give one after --.");
  const memoryMiB = number("memory", values.memory, 256, 1 << 16);
  const cpus = number("cpus", values.cpus, 1, 16);
  const boundSeconds = number("timeout", values.timeout, 1, 86_400);
  const interrupted = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(name, () => interrupted.abort(new Error(name)));
  }
  try {
    const result = await runInTestMachine(
      {
        command: positionals,
        env: Object.fromEntries(values.env.map(variable)),
        files: values.file.map(placed),
        shares: values.share.map(placed),
        ...(values.cwd === undefined ? {} : { cwd: values.cwd }),
      },
      {
        ...(memoryMiB === undefined ? {} : { memoryMiB }),
        ...(cpus === undefined ? {} : { cpus }),
        ...(boundSeconds === undefined ? {} : { boundSeconds }),
        onStdout: (chunk) => process.stdout.write(chunk),
        onStderr: (chunk) => process.stderr.write(chunk),
        ...(values.console ? { onConsole: (chunk: Buffer) => process.stderr.write(chunk) } : {}),
        tell: (line) => process.stderr.write(`testvm: ${line}\n`),
        signal: interrupted.signal,
      },
    );
    if (values.times) {
      const seconds = (ms: number) => (ms / 1000).toFixed(1);
      process.stderr.write(
        `testvm: boot ${seconds(result.bootMs)} s, whole run ${seconds(result.totalMs)} s\n`,
      );
    }
    return result.exitCode;
  } catch (error) {
    if (interrupted.signal.aborted) return EXIT.interrupted;
    throw error;
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`testvm: ${error.message}\n  --help tells how to use it.\n`);
    process.exitCode = EXIT.usage;
  } else if (error instanceof TestMachineError) {
    process.stderr.write(`testvm: ${error.message}\n  ${error.remedy}\n`);
    process.exitCode = EXIT.machine;
  } else throw error;
}
