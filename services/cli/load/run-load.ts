import { randomBytes } from "node:crypto";
import { type Plan, plannedRequests, type Scenario, type Settings } from "#loadtests/lib/plan";
import { EXIT, Failure } from "../failure.ts";
import { withProgress } from "../terminal/progress.ts";
import { requireK6 } from "./k6-program.ts";
import { MOST_REQUESTS, runK6 } from "./k6-run.ts";
import { type Baseline, GENERATOR, type LoadReport, reportOf } from "./report.ts";
import type { Sample } from "./sample.ts";
import { findOrStartService, type Governed, requireLoopback } from "./service.ts";
import { sweep } from "./sweep.ts";
import { isTimed } from "./thresholds.ts";

export interface LoadOptions {
  scenario: Scenario;
  settings: Settings;
  dataDir?: string;
  /** A second service, called in turn with the first. */
  against?: Governed;
  /** Limits on times say nothing on a machine that does other work. */
  failuresOnly: boolean;
  baseline?: Baseline;
  signal: AbortSignal;
  tell(sentence: string): void;
  /** Each second while requests are sent. */
  onProgress?(counts: { ok: number; refused: number; failed: number; elapsedMs: number }): void;
}

const PROGRESS_MS = 1000;

/** Finds or builds k6, starts a service where none runs, has k6 send, removes, stops. The report is there even when the run ended early. */
export async function runLoad(options: LoadOptions): Promise<LoadReport> {
  const { scenario, settings, failuresOnly, baseline, signal, tell, onProgress, against } = options;
  const plan = scenario.plan(settings);
  requireBounded(plan);
  if (against) requireLoopback(against.url);
  const k6 = await withProgress("Building k6", () => requireK6({ signal, tell }));
  const service = await findOrStartService(options.dataDir, signal, tell);
  const services: Governed[] = against ? [service, against] : [service];
  const run = `load-${randomBytes(4).toString("hex")}`;
  const counts = { ok: 0, refused: 0, failed: 0 };
  let timer: NodeJS.Timeout | undefined;
  let hasSent = false;
  try {
    const count = plan.functions.length;
    tell(`Deploying ${count} function${count === 1 ? "" : "s"} …`);
    const sent = await runK6({
      ...{ k6, scenario, settings, plan, services, run, signal },
      onSending() {
        hasSent = true;
        tell(`Sending ${scenario.name} for ${settings.durationMs / 1000} s …`);
        const began = Date.now();
        const progress = (): void => onProgress?.({ ...counts, elapsedMs: Date.now() - began });
        timer = setInterval(progress, PROGRESS_MS);
      },
      onSample({ outcome }: Sample) {
        counts[outcome] += 1;
      },
    });
    return reportOf({
      ...{ scenario, settings, plan },
      thresholds: plan.thresholds.filter((one) => !failuresOnly || !isTimed(one)),
      generator: { name: GENERATOR, version: k6.version },
      run: sent,
      ...(baseline ? { baseline } : {}),
    });
  } finally {
    clearInterval(timer);
    for (const one of services) {
      const left = await sweep(one, run, plan.tenants.length > 0);
      // What set-up had made when it failed, it has removed itself.
      if (left.length > 0 && (hasSent || signal.aborted))
        tell(`Not removed from ${one.url}: ${left.join(", ")}.`);
    }
    await service.stop();
  }
}

function requireBounded({ streams }: Plan): void {
  const planned = streams.reduce((sum, stream) => sum + (plannedRequests(stream) ?? 0), 0);
  if (planned <= MOST_REQUESTS) return;
  throw new Failure(
    `That would be ${Math.round(planned)} requests, more than the ${MOST_REQUESTS} a run may send.`,
    "Choose a shorter --duration or a lower --rate.",
    EXIT.usage,
  );
}
