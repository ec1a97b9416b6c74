import type { VersionSpec } from "#contracts/function";
import type { InvocationJob, Phases } from "#contracts/invocation";
import { inTrace, type TraceContext, type Tracing } from "#telemetry/tracing";
import type { InvocationOutcome } from "./context.ts";

/** When things happened, on performance.now()'s clock, ms; 0 is never. */
export interface InvocationMarks {
  acquireAt: number;
  /** When the function could see the call. */
  servedFrom: number;
  headAt: number;
  finishedAt: number;
}

export interface EndedInvocation {
  outcome: InvocationOutcome;
  marks: InvocationMarks;
  spec: VersionSpec | undefined;
  sandboxId: string | undefined;
  httpStatus: number | undefined;
}

/** Parts of a start as they follow each other, the last one first. */
const LAST_FIRST = ["init", "assign", "restore", "runtime", "create"] as const;
/** Marks are rounded to microseconds, one by one, ms. */
const ROUNDED_MS = 0.1;

/**
 * The spans of one invocation whose gateway's span is recorded. They are made when it is over, of the marks it has left; only the handler's ids are
 * known before, as the function is to have them.
 */
export class InvocationSpans {
  readonly #tracing: Tracing;
  readonly #job: InvocationJob;
  readonly #parent: TraceContext;
  readonly #whole: TraceContext;
  readonly #handler: TraceContext;

  constructor(tracing: Tracing, job: InvocationJob, parent: TraceContext) {
    this.#tracing = tracing;
    this.#job = job;
    this.#parent = parent;
    this.#whole = tracing.childOf(parent);
    this.#handler = tracing.childOf(this.#whole);
  }

  /** What the function sees: whatever it records belongs under its handler's span. */
  headers(): [string, string][] {
    return inTrace(this.#job.head.headers, this.#handler);
  }

  end({ outcome, marks, spec, sandboxId, httpStatus }: EndedInvocation): void {
    const job = this.#job;
    const { phases, status, errorCode, start, path } = outcome;
    const { acquireAt, servedFrom, headAt, finishedAt } = marks;
    const failed = status !== "ok" && status !== "cancelled";
    const { timeOrigin } = performance;
    const takenMs = job.acceptedAtMs + (phases.queue_ms ?? 0);
    const internal = (
      name: string,
      began: number,
      ended: number,
      context = this.#tracing.childOf(this.#whole),
    ): TraceContext =>
      this.#internal(name, began, ended, context, failed && context === this.#handler);
    internal(
      "queue",
      job.acceptedAtMs - timeOrigin,
      takenMs - timeOrigin,
      this.#tracing.childOf(this.#parent),
    );
    if (acquireAt > 0) {
      if (phases.place_ms !== undefined) internal("place", acquireAt - phases.place_ms, acquireAt);
      const until = servedFrom || finishedAt;
      this.#starts(internal("acquire", acquireAt, until), phases, acquireAt, until);
    }
    if (servedFrom > 0) {
      internal("handler", servedFrom, headAt || finishedAt, this.#handler);
      if (headAt > 0) internal("reply", headAt, finishedAt);
    }
    this.#tracing.finished({
      context: this.#whole,
      name: spec ? `invoke ${spec.name}` : "invoke",
      kind: "consumer",
      beganMs: takenMs,
      endedMs: timeOrigin + finishedAt,
      attributes: {
        "faas.invocation_id": job.id,
        "faas.trigger": outcome.trigger,
        ...(spec
          ? {
              "faas.name": spec.name,
              "faas.version": String(spec.version),
              "faas.max_memory": spec.config.memoryMb * 1024 * 1024,
            }
          : {}),
        ...(sandboxId ? { "faas.instance": sandboxId } : {}),
        ...(start ? { "faas.coldstart": start !== "warm" && start !== "reset" } : {}),
        ...(start ? { "cloister.start": start } : {}),
        ...(path ? { "cloister.path": path } : {}),
        "cloister.status": status,
        "cloister.tenant.id": job.tenantId,
        "cloister.function.id": job.functionId,
        ...(httpStatus === undefined ? {} : { "http.response.status_code": httpStatus }),
        ...(outcome.cpuMs === undefined ? {} : { "cloister.cpu_ms": outcome.cpuMs }),
        ...(outcome.memoryPeakBytes === undefined
          ? {}
          : { "cloister.memory_peak_bytes": outcome.memoryPeakBytes }),
        ...(errorCode ? { "error.type": errorCode } : {}),
      },
      failed,
    });
  }

  /** `began` and `ended` are on performance.now()'s clock. */
  #internal(
    name: string,
    began: number,
    ended: number,
    context: TraceContext,
    failed = false,
  ): TraceContext {
    const { timeOrigin } = performance;
    this.#tracing.finished({
      context,
      name,
      kind: "internal",
      beganMs: timeOrigin + began,
      endedMs: timeOrigin + ended,
      attributes: {},
      failed,
    });
    return context;
  }

  /** Only how long each part took is known: they are laid end to end, up to when the function could see the call. What came before the call is left out. */
  #starts(acquire: TraceContext, phases: Phases, from: number, until: number): void {
    let ended = until;
    const part = (name: string, began: number, parent: TraceContext): TraceContext =>
      this.#internal(name, began, ended, this.#tracing.childOf(parent));
    for (const name of LAST_FIRST) {
      const ms = phases[`${name}_ms`];
      if (ms === undefined || ended - ms < from - ROUNDED_MS) continue;
      const began = Math.max(from, ended - ms);
      const context = part(name, began, acquire);
      if (name === "restore" && phases.renew_ms !== undefined && phases.renew_ms <= ms)
        part("renew", ended - phases.renew_ms, context);
      ended = began;
    }
  }
}

/** Undefined where nothing is recorded. */
export function spansOf(
  tracing: Tracing | undefined,
  job: InvocationJob,
): InvocationSpans | undefined {
  if (!tracing || job.traceparent === undefined) return undefined;
  const parent = tracing.follow(job.traceparent, job.tracestate);
  return parent && new InvocationSpans(tracing, job, parent);
}
