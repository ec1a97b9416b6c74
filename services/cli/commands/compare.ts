import { type Command, InvalidArgumentError, Option } from "commander";
import { type CompareProgress, type CompareRequest, MOST_RUNS } from "#contracts/comparison";
import { type Path, pathSchema } from "#contracts/function";
import { markdownTable } from "#report/page";
import type { WholeRequest } from "../../worker/sandbox/index.ts";
import type { Peer } from "../bench/peer-abilities.ts";
import { PEERS, type PeerReport } from "../compare/peers.ts";
import { EXIT, Failure } from "../failure.ts";
import { hostFacts } from "../host/facts.ts";
import { writeReport } from "../terminal/report-file.ts";
import { ms, printJson, table } from "../terminal/table.ts";
import { readEvent } from "./event-option.ts";
import { apiOf, forService } from "./service-options.ts";

interface CompareOptions {
  n: number;
  path?: Path;
  data?: string;
  request?: string;
  method?: string;
  body?: string;
  peers?: Peer[];
  table?: boolean;
  html?: string;
  markdown?: boolean;
  dataDir?: string;
  json?: boolean;
}

const runs = (text: string): number => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= MOST_RUNS) return value;
  throw new InvalidArgumentError(`A whole number from 1 to ${MOST_RUNS} is needed.`);
};

const peerList = (text: string): Peer[] => {
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !(PEERS as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new InvalidArgumentError(`There is no ${unknown}; choose from ${PEERS.join(", ")}.`);
  return [...new Set(names)] as Peer[];
};

const EXAMPLES = `
Examples:
  ./cloister compare hello
  ./cloister compare primes --request '/?size=small' -n 20 --html primes.html
  ./cloister compare hello-python --data '{"name":"you"}' --markdown
  ./cloister compare hello --peers process,runc,crun,bwrap,runsc
  ./cloister compare --table -n 30 --markdown

Each run is an invocation like any other: it is recorded, metered and counted against quotas. n runs of a start are n invocations, a warm one has three before it,
and three rounds come first that do not count. Peers run your function on this machine in the sandboxes of others, as root; process runs it without any walls.`;

export const registerCompare = (program: Command): void => {
  forService(
    program
      .command("compare")
      .description(
        "run a function on both paths, each kind of start, interleaved, and compare them",
      )
      .argument("[name]", "a function of yours: name, or name@version")
      .option("-n <runs>", `measured runs of each start, 1 to ${MOST_RUNS}`, runs, 50)
      .addOption(new Option("--path <path>", "this path alone").choices([...pathSchema.options]))
      .option("--data <JSON or @file>", "call it with this event; - reads stdin")
      .option("--request <path>", "call it over HTTP with this path and query (default: /)")
      .option("--method <method>", "of --request (default: GET, with --body POST)")
      .option("--body <text>", "of --request")
      .option("--peers <list>", `also first answers of ${PEERS.join(", ")}`, peerList)
      .option(
        "--table",
        "instead: what VMs and containers are said to cost, beside what this machine shows",
      )
      .option("--html <file>", "write a report with plots, which needs nothing else")
      .option("--markdown", "print tables that can be pasted into a document")
      .addHelpText("after", EXAMPLES),
  ).action(compare);
};

async function compare(name: string | undefined, options: CompareOptions): Promise<void> {
  if (options.table) {
    const { path, data, request, method, body, peers } = options;
    if ([name, path, data, request, method, body, peers].some((given) => given !== undefined))
      throw new Failure(
        "--table compares no function of yours, and always all there is.",
        "Beside it only -n, --json, --markdown and --html can be used.",
        EXIT.usage,
      );
    const { showTextbook } = await import("../compare/show-textbook.ts");
    await showTextbook(options);
    return;
  }
  if (name === undefined)
    throw new Failure(
      "Which function is to be compared?",
      "Name one of ./cloister ls, or use --table.",
      EXIT.usage,
    );
  const { askForComparison } = await import("../compare/ask.ts");
  const call = callOf(options);
  // Before minutes of work are lost for want of a folder.
  if (options.html !== undefined) writeReport(options.html, "", "a");
  const api = apiOf(options);
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => abort.abort());
  const progress = progressLine();
  let peers: PeerReport[] = [];
  const comparison = await askForComparison(
    api,
    {
      function: name,
      n: options.n,
      ...(options.path ? { paths: [options.path] } : {}),
      ...call.body,
    },
    abort.signal,
    progress.step,
  ).finally(progress.end);
  if (options.peers && comparison.stopped === undefined) {
    const { measurePeers } = await import("../compare/peers.ts");
    peers = await measurePeers({
      api,
      dataDir: options.dataDir,
      name: comparison.function,
      version: comparison.version,
      request: call.whole,
      n: options.n,
      peers: options.peers,
      signal: abort.signal,
      onRound: progress.round,
    }).finally(progress.end);
  }
  const host = hostFacts();
  const { phaseTable, ratioTable, remarksOf, startTable } = await import("#comparison/tables");
  const { peerRemarks, peerTable } = await import("../compare/peer-table.ts");
  const { comparisonPage, leadOf } = await import("../compare/report-page.ts");
  if (options.html !== undefined)
    writeReport(options.html, comparisonPage(comparison, peers, host));
  const remarks = [...remarksOf(comparison), ...peerRemarks(peers)];
  if (options.json) printJson({ ...comparison, ...(options.peers ? { peers } : {}), host });
  else {
    const tables = [
      startTable(comparison),
      ratioTable(comparison),
      phaseTable(comparison),
      ...(peers.length > 0 ? [peerTable(peers)] : []),
    ].filter(({ rows }) => rows.length > 0);
    const text = tables.map(({ columns, rows }) =>
      options.markdown ? markdownTable(columns, rows) : table(columns, rows),
    );
    process.stdout.write(
      `${[...leadOf(comparison, host), "", text.join("\n")].join("\n")}${remarks.map((line) => `\n${line}`).join("")}${remarks.length > 0 ? "\n" : ""}`,
    );
  }
  if (options.html !== undefined) process.stderr.write(`Report: ${options.html}\n`);
  if (abort.signal.aborted)
    throw new Failure(
      "The comparison with peers was interrupted.",
      "What is shown is what was measured.",
      EXIT.interrupted,
    );
  const { paths, stopped } = comparison;
  const failed = paths.some(({ starts }) => starts.some(({ failures }) => failures > 0));
  if (stopped !== undefined || failed || paths.every(({ available }) => !available))
    process.exitCode = EXIT.failed;
}

/** The same question for the service and for sandboxes without one. */
function callOf(options: CompareOptions): {
  body: Pick<CompareRequest, "data" | "request"> | Record<string, never>;
  whole: WholeRequest;
} {
  const { data, request, body } = options;
  const http = request !== undefined || options.method !== undefined || body !== undefined;
  if (data !== undefined) {
    if (http)
      throw new Failure(
        "--data is an event, and --request, --method and --body are a call over HTTP.",
        "Use one of the two.",
        EXIT.usage,
      );
    const text = readEvent(data);
    return {
      body: { data: JSON.parse(text) },
      whole: {
        kind: "event",
        method: "POST",
        headers: [["content-type", "application/json"]],
        body: Buffer.from(text),
      },
    };
  }
  const method = (options.method ?? (body === undefined ? "GET" : "POST")).toUpperCase();
  const path = request ?? "/";
  return {
    body: http
      ? ({ request: { method, path, ...(body === undefined ? {} : { body }) } } as CompareRequest)
      : {},
    whole: { method, path, ...(body === undefined ? {} : { body: Buffer.from(body) }) },
  };
}

/** Elsewhere than on a terminal a line each so many steps. */
const STEPS_PER_LINE = 50;

function progressLine() {
  const terminal = process.stderr.isTTY === true && process.env.TERM !== "dumb";
  let shown = false;
  const say = (text: string, plain: boolean): void => {
    if (terminal) process.stderr.write(`\r\x1b[K${text}`);
    else if (plain) process.stderr.write(`${text}\n`);
    shown = true;
  };
  return {
    step: ({ done, of, path, start, ms: took, failure }: CompareProgress): void =>
      say(
        `${done} of ${of}: ${path} ${start} ${failure === undefined ? `${ms(took)} ms` : `failed: ${failure.slice(0, 60)}`}`,
        done % STEPS_PER_LINE === 0 || done === of,
      ),
    round: (done: number, of: number): void =>
      say(`peers: round ${done} of ${of}`, done % 10 === 0 || done === of),
    end: (): void => {
      if (terminal && shown) process.stderr.write("\r\x1b[K");
      shown = false;
    },
  };
}
