import { setTimeout as pause } from "node:timers/promises";
import { arrivalTimes } from "#loadtests/lib/arrivals";
import type { LoadRequest, Plan, Stream } from "#loadtests/lib/plan";
import { Caller, isConnectionLoss, type Target } from "./caller.ts";
import { picker } from "./picker.ts";
import type { Run, Sample } from "./sample.ts";

/** A run sends no more, whatever its plan: samples are kept in memory. */
export const MOST_REQUESTS = 1_000_000;
/** A service that answers nothing at all for so long is gone; one that is started anew by its supervisor is back sooner, ms. */
const LOST_MS = 5000;
/** A client without a connection does not try again at once, ms. */
const BACK_OFF_MS = 100;
/** What is under way when a run is interrupted may end for so long, ms. */
const GRACE_MS = 5000;
/** A generator that is behind lets answers in after so many requests. */
const TURN = 32;

export interface GenerateOptions {
  signal: AbortSignal;
  onSample?(sample: Sample): void;
}

/** Sends what the plan says, all streams at their times, in turn to each target. Resolves when the last answer is there, or the run ended early. */
export async function generate(
  plan: Plan,
  targets: readonly Target[],
  { signal, onSample }: GenerateOptions,
): Promise<Run> {
  const callers = targets.map((target) => new Caller(target));
  const run: Run = { samples: [], dropped: [], lateMs: [], elapsedMs: 0, early: undefined };
  const stop = new AbortController();
  const beganAt = performance.now();
  const now = (): number => performance.now() - beganAt;
  let sent = 0;
  let lostSince: number | undefined;

  const end = (why: "interrupted" | "service-lost" | "too-many-requests"): void => {
    if (stop.signal.aborted) return;
    run.early = { atMs: why === "service-lost" ? (lostSince ?? now()) : now(), why };
    stop.abort();
  };
  const interrupted = (): void => end("interrupted");
  if (signal.aborted) interrupted();
  signal.addEventListener("abort", interrupted, { once: true });

  const call = async (stream: string, request: LoadRequest, caller: Caller): Promise<Sample> => {
    sent += 1;
    if (sent >= MOST_REQUESTS) end("too-many-requests");
    const sample = await caller.call(stream, request, beganAt);
    run.samples.push(sample);
    onSample?.(sample);
    if (isConnectionLoss(sample.reason)) {
      lostSince ??= now();
      if (now() - lostSince > LOST_MS) end("service-lost");
    } else lostSince = undefined;
    return sample;
  };

  /** Whether the time came before the run ended. */
  const until = async (atMs: number): Promise<boolean> => {
    const left = atMs - now();
    if (left > 0) await pause(left, undefined, { signal: stop.signal }).catch(() => {});
    return !stop.signal.aborted;
  };

  const runStream = async (stream: Stream): Promise<void> => {
    const { name, startMs, arrival } = stream;
    if (!(await until(startMs))) return;
    const next = picker(stream, callers);
    const open = new Set<Promise<Sample>>();
    const launch = (request: LoadRequest, caller: Caller): void => {
      const one = call(name, request, caller);
      open.add(one);
      void one.finally(() => open.delete(one));
    };
    if (arrival.kind === "once") {
      for (const request of stream.requests) for (const caller of callers) launch(request, caller);
    } else if (arrival.kind === "clients") {
      const endMs = startMs + arrival.durationMs;
      const client = async (): Promise<void> => {
        while (!stop.signal.aborted && now() < endMs) {
          const { request, caller } = next();
          const { reason } = await call(name, request, caller);
          if (isConnectionLoss(reason)) await until(now() + BACK_OFF_MS);
        }
      };
      await Promise.all(Array.from({ length: arrival.clients }, client));
    } else {
      let inARow = 0;
      for (const dueMs of arrivalTimes(arrival.stages)) {
        const at = startMs + dueMs;
        if (now() < at) {
          inARow = 0;
          if (!(await until(at))) break;
        } else if (++inARow % TURN === 0) await new Promise((resolve) => setImmediate(resolve));
        if (stop.signal.aborted) break;
        const { request, caller } = next();
        if (open.size >= arrival.mostInFlight)
          run.dropped.push({ atMs: at, target: caller.target.label, stream: name });
        else {
          run.lateMs.push(Math.max(0, now() - at));
          launch(request, caller);
        }
      }
    }
    await Promise.all(open);
  };

  const streams = Promise.all(plan.streams.map(runStream));
  const cut = Promise.withResolvers<void>();
  let grace: NodeJS.Timeout | undefined;
  stop.signal.addEventListener("abort", () => {
    grace = setTimeout(cut.resolve, GRACE_MS);
  });
  await Promise.race([streams, cut.promise]);
  clearTimeout(grace);
  signal.removeEventListener("abort", interrupted);
  // Requests still under way after the grace fail now, and are counted as that.
  await Promise.all(callers.map((caller) => caller.close()));
  await streams;
  // Nobody answered any more, though the run was over before that had lasted long.
  if (lostSince !== undefined) end("service-lost");
  run.elapsedMs = now();
  return run;
}
