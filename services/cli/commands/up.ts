import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { EXIT, Failure, messageOf } from "../failure.ts";
import { foldersOf } from "../instance/folders.ts";
import { Instance } from "../instance/instance.ts";

export interface UpOptions {
  port: number;
  data?: string;
  detach?: boolean;
  verbose?: boolean;
}

export function parsePort(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new InvalidArgumentError("A port is a whole number from 1 to 65535.");
  }
  return port;
}

export const registerUp = (program: Command): void => {
  program
    .command("up")
    .description("run the service on this machine until Ctrl-C or ./cloister down")
    .option("--port <port>", "where HTTP is served on 127.0.0.1", parsePort, 8080)
    .option("--data <folder>", "data folder (default: CLOISTER_DATA, else /var/lib/cloister)")
    .option("--detach", "return when it is ready and leave it running")
    .option("-v, --verbose", "show what the services log and how long each part of the start took")
    .action(async (options: UpOptions) => {
      if (options.detach) await detached(options);
      else await attached(options);
    });
};

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

async function attached(options: UpOptions): Promise<void> {
  const instance = await Instance.open({
    port: options.port,
    ...(options.data === undefined ? {} : { data: options.data }),
    tell: (sentence) => process.stderr.write(`${sentence}\n`),
    ...(options.verbose
      ? { onLine: (name, line) => process.stderr.write(`${name.padEnd(8)} ${line}\n`) }
      : {}),
  });
  const signalled = Promise.withResolvers<NodeJS.Signals>();
  let signals = 0;
  let starting = true;
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      signals += 1;
      // A start is not drained, and who asks twice does not want to wait.
      if (signals > 1 || starting) {
        if (signals > 1) process.stderr.write("Ending at once.\n");
        instance.kill();
      } else process.stderr.write("Draining; once more to end at once.\n");
      signalled.resolve(signal);
    });
  }
  try {
    await instance.start();
  } catch (error) {
    await instance.stop();
    if (signals > 0) {
      throw new Failure("The start was interrupted.", "Nothing is left running.", EXIT.interrupted);
    }
    throw error instanceof Failure
      ? error
      : new Failure(messageOf(error), `See the logs in ${instance.folders.logs}.`);
  }
  starting = false;
  if (options.verbose) {
    const phases = Object.entries(instance.phases).map(([name, ms]) => `${name} ${ms.toFixed(0)}`);
    process.stderr.write(`phases (ms): ${phases.join(", ")}\n`);
  }
  if (process.connected) {
    process.send?.({ ready: instance.url });
    process.disconnect();
  }
  process.stdout.write(`ready ${instance.url}\n`);
  // The lock and the children do not hold the event loop; this does, until a signal comes.
  const hold = setInterval(() => {}, 2 ** 30);
  if (signals === 0) await signalled.promise;
  clearInterval(hold);
  await instance.stop();
  process.stderr.write("Stopped.\n");
  process.exit(signals > 1 ? EXIT.interrupted : EXIT.ok);
}

async function detached(options: UpOptions): Promise<void> {
  const url = await startDetached(options);
  process.stdout.write(`ready ${url}\n`);
}

/**
 * Starts `up` in a session of its own and resolves with its URL when it is ready. Its messages go to DIR/logs/up-output.log; when it does not become ready they are in the
 * failure.
 */
export async function startDetached(options: UpOptions): Promise<string> {
  const folders = foldersOf(options.data);
  mkdirSync(folders.logs, { recursive: true, mode: 0o750 });
  const output = join(folders.logs, "up-output.log");
  const fd = openSync(output, "w", 0o640);
  const main = join(import.meta.dirname, "../main.ts");
  const child = spawn(
    process.execPath,
    [
      ...process.execArgv,
      main,
      "up",
      ...["--port", String(options.port), "--data", folders.data],
      ...(options.verbose ? ["--verbose"] : []),
    ],
    { detached: true, stdio: ["ignore", fd, fd, "ipc"], env: { ...process.env, NO_COLOR: "1" } },
  );
  closeSync(fd);
  const outcome = Promise.withResolvers<string>();
  child.once("message", (message) => {
    const { ready } = message as { ready?: unknown };
    if (typeof ready === "string") outcome.resolve(ready);
  });
  child.once("error", outcome.reject);
  child.once("exit", (code) => {
    const said = readFileSync(output, "utf8").trim().split("\n");
    // `up` ended with its own sentence and remedy, which are its last two lines.
    const [sentence = `up ended with ${code}.`, remedy = `See ${folders.logs}.`] = said.slice(-2);
    const exitCode = code === null || code === 0 ? EXIT.failed : code;
    outcome.reject(new Failure(sentence.replace(/^cloister: /, ""), remedy.trim(), exitCode));
  });
  const stop = (): void => void child.kill("SIGTERM");
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await outcome.promise;
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
    if (child.connected) child.disconnect();
    child.unref();
  }
}
