import type { Command } from "commander";
import { followLogs, type LogLine, storedLogs } from "../http/logs.ts";
import { printJson } from "../terminal/table.ts";
import { apiOf, forService } from "./service-options.ts";

interface LogsOptions {
  follow?: boolean;
  limit: string;
  dataDir?: string;
  json?: boolean;
}

export const registerLogs = (program: Command): void => {
  forService(
    program
      .command("logs")
      .description("what a function printed")
      .argument("<name>")
      .option("-f, --follow", "go on with new lines until Ctrl-C")
      .option("-n, --limit <lines>", "how many of the stored ones, at most 1000", "100"),
  ).action(async (name: string, options: LogsOptions) => {
    const api = apiOf(options);
    const show = (line: LogLine): void => {
      if (options.json) printJson(line);
      else process.stdout.write(format(line));
    };
    for (const line of await storedLogs(api, name, { limit: options.limit })) show(line);
    if (!options.follow) return;
    const abort = new AbortController();
    process.once("SIGINT", () => abort.abort());
    process.once("SIGTERM", () => abort.abort());
    try {
      for await (const line of await followLogs(api, name, abort.signal)) show(line);
    } catch (error) {
      if (!abort.signal.aborted) throw error;
    }
  });
};

function format(line: LogLine): string {
  const head = `${new Date(line.atMs).toISOString()} ${line.invocationId?.slice(-6) ?? "-"} ${line.stream}`;
  const text = line.text.replace(/\n$/, "");
  return text
    .split("\n")
    .map((one) => `${head} ${one}\n`)
    .join("");
}
