import { spawn } from "node:child_process";
import { join } from "node:path";
import { childEnd } from "#embedded/process-life";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import type { Plan, Scenario, Settings } from "#loadtests/lib/plan";
import { EXIT, Failure } from "../failure.ts";
import { droppedByPart } from "./dropped.ts";
import { K6Lines, type K6Summary, type Told } from "./k6-lines.ts";
import type { K6 } from "./k6-program.ts";
import type { EarlyEnd, Run, Sample } from "./sample.ts";
import type { Governed } from "./service.ts";

/** A run sends no more, whatever its plan: samples are kept in memory. */
export const MOST_REQUESTS = 1_000_000;
/** A service that answers nothing at all for so long is gone; one that is started anew by its supervisor is back sooner, ms. */
const LOST_MS = 5000;
/** k6 removes what it made when it is interrupted; one that does not come to an end is ended, ms. */
const END_MS = 30_000;

export interface K6RunOptions {
  k6: K6;
  scenario: Scenario;
  settings: Settings;
  plan: Plan;
  /** One, or two that are called in turn. */
  services: readonly Governed[];
  /** What the names of all that the run makes begin with. */
  run: string;
  signal: AbortSignal;
  /** All is deployed. */
  onSending(): void;
  onSample(sample: Sample): void;
}

/** Has k6 run a scenario. Resolves when k6 has ended, also where that was early; rejects when nothing was sent. */
export async function runK6(options: K6RunOptions): Promise<Run> {
  const { plan, signal, onSending, onSample } = options;
  const child = startK6(options);
  const run: Run = {
    ...{ targets: [], beganAt: new Date(), samples: [], dropped: new Map() },
    ...{ bytes: { sent: 0, received: 0 }, elapsedMs: 0, early: undefined },
  };
  let beganAt: number | undefined;
  let endedAt: number | undefined;
  let problem: Failure | undefined;
  let summary: K6Summary | undefined;
  let lostSince: number | undefined;
  let early: EarlyEnd | undefined;
  let timer: NodeJS.Timeout | undefined;
  const sinceMs = (): number => performance.now() - (beganAt ?? performance.now());

  const stop = (): void => {
    child.kill("SIGINT");
    timer ??= setTimeout(() => child.kill("SIGKILL"), END_MS);
  };
  const end = (why: EarlyEnd["why"], atMs = sinceMs()): void => {
    if (early) return;
    early = { atMs, why };
    stop();
  };
  const onInterrupt = (): void => (endedAt === undefined ? end("interrupted") : stop());

  const hear = ([what, value]: Told): void => {
    if (what === "problem") problem = new Failure(value.message, value.remedy);
    else if (what === "summary") summary = value;
    else if (what === "sent") endedAt = performance.now();
    else if (what === "sending") {
      beganAt = performance.now();
      run.beganAt = new Date(value.beganAt);
      run.targets = value.targets;
      onSending();
    } else if (run.samples.length < MOST_REQUESTS) {
      run.samples.push(value);
      onSample(value);
      if (run.samples.length === MOST_REQUESTS) end("too-many-requests");
      if (!value.lost) lostSince = undefined;
      else {
        lostSince ??= sinceMs();
        if (sinceMs() - lostSince > LOST_MS) end("service-lost", lostSince);
      }
    }
  };
  const lines = new K6Lines(hear);
  child.stderr?.setEncoding("utf8").on("data", (text: string) => lines.add(text));
  if (signal.aborted) onInterrupt();
  signal.addEventListener("abort", onInterrupt, { once: true });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const ended = await childEnd(child);
  await closed;
  clearTimeout(timer);
  signal.removeEventListener("abort", onInterrupt);

  if (problem) throw problem;
  if (beganAt === undefined) throw notBegun(early, ended.code ?? ended.signal, lines.said);
  run.elapsedMs = (endedAt ?? performance.now()) - beganAt;
  // Nobody answered any more, though the run was over before that had lasted long.
  if (lostSince !== undefined) early ??= { atMs: lostSince, why: "service-lost" };
  early ??= untold(run, ended.code, summary, lines.said);
  run.early = early;
  if (summary) {
    run.bytes = summary.bytes;
    run.dropped = droppedByPart(plan, run.samples, summary, early !== undefined);
  }
  return run;
}

/** Every call that k6 made must have been heard of, else the report would be of others. */
function untold(
  { samples, elapsedMs }: Run,
  code: number | null,
  summary: K6Summary | undefined,
  said: string,
): EarlyEnd | undefined {
  if (code === 0 && summary?.iterations === samples.length) return undefined;
  return { atMs: elapsedMs, why: "k6-ended", said: said.slice(-500) };
}

function notBegun(early: EarlyEnd | undefined, how: unknown, said: string): Failure {
  if (early)
    return new Failure("The load test was interrupted.", "Run it again.", EXIT.interrupted);
  return new Failure(
    `k6 ended with ${how} before it sent anything:\n${said.slice(-2000)}`,
    "Run ./cloister doctor, which says which k6 this is; CLOISTER_K6 names another one.",
  );
}

/** In a group of its own, so that Ctrl-C reaches it by way of this process; it ends with this one, however that ends. */
function startK6({ k6, scenario, settings, services, run }: K6RunOptions) {
  const script = join(PROJECT_ROOT, "loadtests/scenarios", `${scenario.name}.ts`);
  const words = ["run", "--quiet", "--no-color", "--no-usage-report", "--no-thresholds"];
  // An empty address: its own control port is not needed, and two runs would want the same.
  const logs = ["--address", "", "--log-output", "stderr", "--log-format", "raw"];
  return spawn("setpriv", ["--pdeathsig=KILL", k6.path, ...words, ...logs, script], {
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
    env: environment(settings, services, run),
  });
}

/** All that k6 gets: settings of its own that the caller has (K6_...) would change what is run. */
function environment(
  { durationMs, rate, clients, isolation }: Settings,
  [first, second]: readonly Governed[],
  run: string,
): Record<string, string> {
  const given = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    TMPDIR: process.env.TMPDIR,
    K6_AUTO_EXTENSION_RESOLUTION: "false",
    CLOISTER_LOAD_RUN: run,
    CLOISTER_LOAD_DURATION: `${durationMs}ms`,
    CLOISTER_LOAD_RATE: rate?.toString(),
    CLOISTER_LOAD_VUS: clients?.toString(),
    CLOISTER_LOAD_ISOLATION: isolation,
    CLOISTER_URL: first?.url,
    CLOISTER_KEY: first?.key,
    CLOISTER_ADMIN_KEY: first?.adminKey,
    CLOISTER_AB_URL: second?.url,
    CLOISTER_AB_KEY: second?.key,
    CLOISTER_AB_ADMIN_KEY: second?.adminKey,
  };
  return Object.fromEntries(
    Object.entries(given).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
}
