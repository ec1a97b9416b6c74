import { createRequire } from "node:module";
import { plannedRequests } from "#loadtests/lib/arrivals";
import type { Plan, Scenario, Settings } from "#loadtests/lib/plan";
import { EXIT, Failure } from "../failure.ts";
import { withProgress } from "../terminal/progress.ts";
import { type Deployment, deployFor } from "./deployment.ts";
import { generate, MOST_REQUESTS } from "./generator.ts";
import { type Baseline, type LoadReport, reportOf } from "./report.ts";
import type { Sample } from "./sample.ts";
import { findOrStartService, requireLoopback } from "./service.ts";
import { isTimed } from "./thresholds.ts";

export interface LoadOptions {
  scenario: Scenario;
  settings: Settings;
  dataDir?: string;
  /** A second service, called in turn with the first. */
  against?: { url: string; key: string; adminKey: string | undefined };
  /** Limits on times say nothing on a machine that does other work. */
  failuresOnly: boolean;
  baseline?: Baseline;
  signal: AbortSignal;
  tell(sentence: string): void;
  /** Each second while requests are sent. */
  onProgress?(counts: { ok: number; refused: number; failed: number; elapsedMs: number }): void;
}

const PROGRESS_MS = 1000;

/** Starts what is missing, deploys, sends, removes, stops. The report is there even when the run ended early. */
export async function runLoad(options: LoadOptions): Promise<LoadReport> {
  const { scenario, settings, signal, tell, against } = options;
  const plan = scenario.plan(settings);
  requireBounded(plan);
  if (against) requireLoopback(against.url);
  const service = await findOrStartService(options.dataDir, signal, tell);
  const deployments: Deployment[] = [];
  try {
    const services = against ? [service, against] : [service];
    const what = `Deploying ${plan.functions.length} function${plan.functions.length === 1 ? "" : "s"}`;
    await withProgress(what, async () => {
      for (const [index, one] of services.entries())
        deployments.push(await deployFor(plan, index === 0 ? "a" : "b", one, signal));
    });
    return await send(options, plan, deployments);
  } finally {
    const left: string[] = [];
    for (const deployment of deployments) left.push(...(await deployment.remove()));
    if (left.length > 0)
      tell(`Not removed, because the service did not answer: ${left.join(", ")}.`);
    await service.stop();
  }
}

async function send(
  { scenario, settings, failuresOnly, baseline, signal, tell, onProgress }: LoadOptions,
  plan: Plan,
  deployments: readonly Deployment[],
): Promise<LoadReport> {
  const targets = deployments.map(({ target }) => target);
  tell(`Sending ${scenario.name} for ${settings.durationMs / 1000} s …`);
  const counts = { ok: 0, refused: 0, failed: 0 };
  const beganAt = new Date();
  const timer = setInterval(
    () => onProgress?.({ ...counts, elapsedMs: Date.now() - beganAt.getTime() }),
    PROGRESS_MS,
  );
  const onSample = ({ outcome }: Sample): void => {
    counts[outcome] += 1;
  };
  const run = await generate(plan, targets, { signal, onSample }).finally(() =>
    clearInterval(timer),
  );
  return reportOf({
    scenario,
    settings,
    plan,
    thresholds: plan.thresholds.filter((one) => !failuresOnly || !isTimed(one)),
    targets,
    generator: { name: "undici", version: undiciVersion() },
    beganAt,
    run,
    ...(baseline ? { baseline } : {}),
  });
}

function undiciVersion(): string {
  const { version } = createRequire(import.meta.url)("undici/package.json") as { version: string };
  return version;
}

function requireBounded(plan: Plan): void {
  const planned = plan.streams.reduce((sum, stream) => sum + (plannedRequests(stream) ?? 0), 0);
  if (planned <= MOST_REQUESTS) return;
  throw new Failure(
    `That would be ${Math.round(planned)} requests, more than the ${MOST_REQUESTS} a run may send.`,
    "Choose a shorter --duration or a lower --rate.",
    EXIT.usage,
  );
}
