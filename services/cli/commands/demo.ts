import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { demonstrate, type Row } from "../demo/rows.ts";
import { EXIT, Failure, messageOf } from "../failure.ts";
import { Api, readCredentials } from "../http/api.ts";
import { freePort, Instance } from "../instance/instance.ts";
import { ms, printJson, table } from "../terminal/table.ts";
import { startDetached } from "./up.ts";

export const registerDemo = (program: Command): void => {
  program
    .command("demo")
    .description("start a service of its own, deploy the examples, call each, print a table, stop")
    .option("--keep", "leave the service running")
    .option("--json", "print JSON for scripts")
    .action(demo);
};

const say = (text: string): void => void process.stderr.write(`${text}\n`);

async function demo(options: { keep?: boolean; json?: boolean }): Promise<void> {
  const data = mkdtempSync(join(tmpdir(), "cloister-demo-"));
  const port = await freePort();
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(signal, () => abort.abort());
  say(`Starting a service on 127.0.0.1:${port} with its data in ${data} …`);
  const stop = options.keep
    ? await startKept(data, port)
    : await startOwn(data, port, abort.signal);
  let rows: Row[] = [];
  try {
    rows = await allRows(data, abort.signal);
  } finally {
    if (options.keep) sayHowToGoOn(data);
    else {
      say("Stopping …");
      await stop();
      rmSync(data, { recursive: true, force: true });
    }
  }
  if (options.json) printJson({ rows });
  else print(rows);
  if (abort.signal.aborted) {
    throw new Failure("The demo was interrupted.", "Run it again.", EXIT.interrupted);
  }
  const wrong = rows.filter(({ right }) => !right);
  if (wrong.length > 0) {
    const names = wrong.map((row) => `${row.function} (${row.path}, ${row.start})`);
    throw new Failure(
      `${wrong.length} answers were not right: ${names.join(", ")}.`,
      "Run ./cloister demo --keep and see ./cloister logs <name>.",
    );
  }
}

async function startOwn(
  data: string,
  port: number,
  signal: AbortSignal,
): Promise<() => Promise<void>> {
  const instance = await Instance.open({ data, port, tell: say });
  const kill = (): void => instance.kill();
  signal.addEventListener("abort", kill, { once: true });
  try {
    await instance.start();
  } catch (error) {
    await instance.stop();
    if (signal.aborted)
      throw new Failure("The demo was interrupted.", "Run it again.", EXIT.interrupted);
    throw error instanceof Failure
      ? error
      : new Failure(messageOf(error), `See the logs in ${instance.folders.logs}.`);
  }
  signal.removeEventListener("abort", kill);
  return () => instance.stop();
}

async function startKept(data: string, port: number): Promise<() => Promise<void>> {
  await startDetached({ data, port });
  return async () => {};
}

async function allRows(data: string, signal: AbortSignal): Promise<Row[]> {
  const api = new Api(readCredentials(data));
  const rows: Row[] = [];
  const examples = readdirSync(join(PROJECT_ROOT, "examples"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
  for (const name of examples) {
    if (signal.aborted) break;
    say(`${name} …`);
    try {
      rows.push(...(await demonstrate(api, name, join(PROJECT_ROOT, "examples", name), data)));
    } catch (error) {
      // One example that fails must not hide the others.
      rows.push(faultRow(name, messageOf(error)));
    }
  }
  return rows;
}

const faultRow = (name: string, answer: string): Row => ({
  function: name,
  runtime: "",
  path: "container",
  start: "-",
  status: 0,
  first_ms: null,
  warm_p50_ms: null,
  answer,
  right: false,
});

function print(rows: Row[]): void {
  const cells = rows.map((row) => [
    row.function,
    row.runtime,
    row.path,
    row.start,
    row.status === 0 ? "-" : String(row.status),
    ms(row.first_ms ?? undefined),
    ms(row.warm_p50_ms ?? undefined),
    row.right ? row.answer : `WRONG: ${row.answer}`,
  ]);
  const right = true;
  const columns = [
    { title: "FUNCTION" },
    { title: "RUNTIME" },
    { title: "PATH" },
    { title: "START" },
    { title: "STATUS", right },
    { title: "FIRST ms", right },
    { title: "WARM p50 ms", right },
    { title: "ANSWER" },
  ];
  process.stdout.write(table(columns, cells));
  if (rows.some(({ unavailable }) => unavailable !== undefined)) {
    process.stdout.write(
      "\nA path that cannot be had (see ./cloister placement <name> and ./cloister doctor) is refused, never replaced by the other.\n",
    );
  }
}

function sayHowToGoOn(data: string): void {
  say(`It goes on running. Use it with CLOISTER_DATA=${data}, e.g.`);
  say(`  CLOISTER_DATA=${data} ./cloister invoke hello`);
  say(`  CLOISTER_DATA=${data} ./cloister down`);
}
