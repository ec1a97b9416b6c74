import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { placePostgresData, scratchFolder } from "./postgres-data.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
/** The first start makes a database; a busy machine takes its time, ms. */
const START_BOUND_MS = 120_000;
const STOP_BOUND_MS = 120_000;

export interface InstanceOptions {
  /** Settings of the services, e.g. CLOISTER_IDLE_MS. */
  env?: Record<string, string>;
  /** Of an instance that ran before; default: a new temporary folder, which `stop` removes. */
  dataDirectory?: string;
  port?: number;
  /** The instance makes its database itself, as a first start does. Default: it finds one that was just made. */
  fromNothing?: boolean;
}

/** A whole Cloister, started by the real command line. */
export interface Instance {
  url: string;
  key: string;
  adminKey: string;
  dataDirectory: string;
  port: number;
  /** `up` itself. */
  supervisor: ChildProcess;
  /** Pids by service: postgres, redis, sandboxd, gateway, worker; read anew at each call. */
  pids(): Record<string, number>;
  /** What `up` has said. */
  output(): string;
  /** Resolves when `up` says a line that matches, at once if it has; rejects after `boundMs`. */
  said(pattern: RegExp, boundMs?: number): Promise<void>;
  /** Drains, waits until all has ended and removes the data folder it made. Rejects when `up` does not end with 0. */
  stop(): Promise<void>;
}

/** The environment of a command line that must not meet the services of whoever runs the tests. */
export function testEnvironment(more: Record<string, string> = {}): Record<string, string> {
  const env: Record<string, string> = { NO_COLOR: "1" };
  for (const [name, value] of Object.entries(process.env)) {
    // NODE_TEST_CONTEXT would make a child believe it were a test file.
    const own =
      (name.startsWith("CLOISTER_") && name !== "CLOISTER_IMAGES") || name.startsWith("OTEL_");
    if (value !== undefined && !own && !name.startsWith("NODE_")) env[name] = value;
  }
  return { ...env, ...more };
}

/** Arguments that run the command line without the entry script, which would look after set-up each time. */
export const commandLine = (...words: string[]): [string, string[]] => [
  process.execPath,
  ["--disable-warning=ExperimentalWarning", join(ROOT, "services/cli/main.ts"), ...words],
];

/** Starts an instance and resolves when it is ready. When that fails, nothing of it is left and the error says what `up` said. */
export async function startInstance(options: InstanceOptions = {}): Promise<Instance> {
  const made = options.dataDirectory === undefined;
  const dataDirectory = options.dataDirectory ?? mkdtempSync(join(tmpdir(), "cloister-test-"));
  if (!options.fromNothing && !options.env?.CLOISTER_DATABASE_URL)
    await giveDatabase(dataDirectory);
  const port = options.port ?? (await unusedPort());
  const [program, args] = commandLine("up", "--data", dataDirectory, "--port", String(port));
  const supervisor = spawn(program, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: testEnvironment(options.env),
  });
  const ended = new Promise<number | null>((done) => supervisor.once("exit", done));
  // A test that ends early must not leave a service behind.
  const onExit = (): void => void supervisor.kill("SIGKILL");
  process.once("exit", onExit);
  let output = "";
  const waiting = new Set<() => void>();
  for (const stream of [supervisor.stdout, supervisor.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      for (const look of [...waiting]) look();
    });
  }
  const said = (pattern: RegExp, boundMs = 30_000): Promise<void> => {
    const { promise, resolve: done, reject } = Promise.withResolvers<void>();
    const look = (): void => {
      if (pattern.test(output)) done();
    };
    const timer = setTimeout(
      () => reject(new Error(`up did not say ${pattern} in ${boundMs} ms. It said:\n${output}`)),
      boundMs,
    );
    waiting.add(look);
    look();
    return promise.finally(() => {
      clearTimeout(timer);
      waiting.delete(look);
    });
  };
  const early = ended.then((code) => {
    throw new Error(`up ended with ${code} before it was ready. It said:\n${output}`);
  });
  const removeFolder = (): void => {
    if (made) rmSync(dataDirectory, { recursive: true, force: true });
  };
  try {
    await Promise.race([said(/^ready http/m, START_BOUND_MS), early]);
  } catch (error) {
    supervisor.kill("SIGTERM");
    await ended;
    removeFolder();
    throw error;
  }
  early.catch(() => {});
  const read = (name: string): unknown =>
    JSON.parse(readFileSync(join(dataDirectory, name), "utf8"));
  const credentials = read("credentials.json") as { url: string; key: string; adminKey: string };
  return {
    ...credentials,
    dataDirectory,
    port,
    supervisor,
    pids() {
      const { services } = read("up.json") as { services: Record<string, { pid: number }> };
      return Object.fromEntries(Object.entries(services).map(([name, { pid }]) => [name, pid]));
    },
    output: () => output,
    said,
    async stop() {
      if (supervisor.exitCode === null && supervisor.signalCode === null)
        supervisor.kill("SIGTERM");
      const timer = setTimeout(() => supervisor.kill("SIGKILL"), STOP_BOUND_MS);
      await ended;
      clearTimeout(timer);
      process.removeListener("exit", onExit);
      removeFolder();
      if (supervisor.exitCode !== 0) {
        throw new Error(
          `up ended with ${supervisor.exitCode ?? supervisor.signalCode}. It said:\n${output}`,
        );
      }
    },
  };
}

/** A database as a first start makes it, unless there is one. Where it lies in memory the runner of the tests removes it when the file has ended. */
async function giveDatabase(dataDirectory: string): Promise<void> {
  const place = join(dataDirectory, "postgres");
  if (existsSync(place)) return;
  if (process.env.CLOISTER_TEST_SCRATCH === undefined) return placePostgresData(place);
  const elsewhere = join(mkdtempSync(join(scratchFolder(), "cloister-postgres-")), "data");
  await placePostgresData(elsewhere);
  symlinkSync(elsewhere, place);
}

/** A port nobody listens on at this moment. */
async function unusedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  await new Promise<void>((done) => server.close(() => done()));
  if (address === null || typeof address === "string") throw new Error("no port was given");
  return address.port;
}
