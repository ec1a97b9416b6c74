import { type Command, Option } from "commander";
import { pathSchema } from "#contracts/function";
import { Failure } from "../failure.ts";
import { failureOf, segment } from "../http/api.ts";
import { invocationLogs, invocationTrace, type LogLine } from "../http/logs.ts";
import { withProgress } from "../terminal/progress.ts";
import { printJson } from "../terminal/table.ts";
import { readEvent } from "./event-option.ts";
import { apiOf, forService } from "./service-options.ts";

interface InvokeOptions {
  data?: string;
  isolation?: string;
  async?: boolean;
  log?: boolean;
  trace?: boolean;
  dataDir?: string;
  json?: boolean;
}

export const registerInvoke = (program: Command): void => {
  forService(
    program
      .command("invoke")
      .description("call a function with a JSON event, print its answer")
      .argument("<name>", "name, or name@version")
      .option("--data <JSON or @file>", "the event; - reads stdin", "{}")
      .addOption(
        new Option("--isolation <path>", "ask for this path").choices([...pathSchema.options]),
      )
      .option("--async", "not in this version")
      .option("--log", "show what the function printed, on stderr")
      .option("--trace", "show the system calls of the call, on stderr; in a micro-VM only"),
  ).action(async (name: string, options: InvokeOptions) => {
    if (options.async) {
      throw new Failure("Asynchronous invocations are not in this version.", "Leave out --async.");
    }
    const body = readEvent(options.data ?? "{}");
    const api = apiOf(options);
    const response = await withProgress(`Waiting for ${name}`, () =>
      api.send("POST", `/v1/functions/${segment(name)}/invocations`, {
        body,
        headers: {
          "content-type": "application/json",
          ...(options.isolation ? { "cloister-isolation": options.isolation } : {}),
          ...(options.trace ? { "cloister-trace": "1" } : {}),
        },
      }),
    );
    const id = response.headers.get("cloister-invocation-id");
    if (!response.ok) {
      const failure = await failureOf(response);
      if (options.log && id) show(await invocationLogs(api, name, id));
      // The others were refused before anything ran.
      if (options.trace && id && response.status >= 500 && failure.code?.startsWith("function_"))
        show(await invocationTrace(api, name, id));
      throw failure;
    }
    const text = await response.text();
    if (options.json) {
      printJson({
        status: response.status,
        invocation: id,
        isolation: response.headers.get("cloister-isolation"),
        start: response.headers.get("cloister-start"),
        version: Number(response.headers.get("cloister-version")),
        serverTiming: response.headers.get("server-timing"),
        answer: asJson(text),
      });
    } else process.stdout.write(text.endsWith("\n") ? text : `${text}\n`);
    if (options.log && id) show(await invocationLogs(api, name, id));
    if (options.trace && id) show(await invocationTrace(api, name, id));
  });
};

function show(lines: LogLine[]): void {
  for (const { text } of lines) process.stderr.write(text.endsWith("\n") ? text : `${text}\n`);
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
