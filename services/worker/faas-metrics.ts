import type { Path, StartKind } from "#contracts/function";
import {
  Counter,
  DURATION_BUCKETS_SECONDS,
  Histogram,
  MEMORY_BUCKETS_BYTES,
  type Registry,
} from "#telemetry/metrics";
import type { InvocationOutcome } from "./invoke/context.ts";

/** Starts that made a sandbox, or gave one its function, for the call. */
const COLD: ReadonlySet<StartKind> = new Set(["cold", "prepared", "restored"]);

type HowRun = "path" | "start" | "faas_trigger";
const HOW_RUN = ["path", "start", "faas_trigger"] as const;

/**
 * What OpenTelemetry's semantic conventions for functions as a service name (`faas.*`), in Prometheus's spelling: dots as underscores, the unit and
 * `_total` at the end. Labels are few and fixed: never a tenant, a function or an invocation.
 */
export class FaasMetrics {
  readonly #invocations: Counter<HowRun>;
  readonly #errors: Counter<"path" | "faas_trigger" | "error_type">;
  readonly #timeouts: Counter<HowRun>;
  readonly #cancelled: Counter<HowRun>;
  readonly #coldStarts: Counter<"path" | "start">;
  readonly #invokeSeconds: Histogram<HowRun>;
  readonly #initSeconds: Histogram<"path" | "start">;
  readonly #memoryBytes: Histogram<"path">;
  readonly #cpuSeconds: Histogram<"path">;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#invocations = new Counter({
      name: "faas_invocations_total",
      help: "Invocations that ended well: the function's whole answer was passed on",
      labelNames: HOW_RUN,
      registers,
    });
    this.#errors = new Counter({
      name: "faas_errors_total",
      help: "Invocations that ended with an error, by code of the catalogue; timeouts are among them, callers that went away are not",
      labelNames: ["path", "faas_trigger", "error_type"],
      registers,
    });
    this.#timeouts = new Counter({
      name: "faas_timeouts_total",
      help: "Invocations that took longer than their function may",
      labelNames: HOW_RUN,
      registers,
    });
    this.#cancelled = new Counter({
      name: "cloister_worker_cancelled_total",
      help: "Invocations whose caller went away before they ended",
      labelNames: HOW_RUN,
      registers,
    });
    this.#coldStarts = new Counter({
      name: "faas_coldstarts_total",
      help: "Invocations for which a sandbox was made, or given its function: all but warm and reset ones",
      labelNames: ["path", "start"],
      registers,
    });
    this.#invokeSeconds = new Histogram({
      name: "faas_invoke_duration_seconds",
      help: "From when the function could see the call to the end of its answer",
      labelNames: HOW_RUN,
      buckets: DURATION_BUCKETS_SECONDS,
      registers,
    });
    this.#initSeconds = new Histogram({
      name: "faas_init_duration_seconds",
      help: "What a cold start cost its caller: from asking for a sandbox to when the function could see the call",
      labelNames: ["path", "start"],
      buckets: DURATION_BUCKETS_SECONDS,
      registers,
    });
    this.#memoryBytes = new Histogram({
      name: "faas_mem_usage_bytes",
      help: "Most memory that the invocation's sandbox has had",
      labelNames: ["path"],
      buckets: MEMORY_BUCKETS_BYTES,
      registers,
    });
    this.#cpuSeconds = new Histogram({
      name: "faas_cpu_usage_seconds",
      help: "Processor time of an invocation",
      labelNames: ["path"],
      buckets: DURATION_BUCKETS_SECONDS,
      registers,
    });
  }

  finished(outcome: InvocationOutcome): void {
    const { status, errorCode, trigger, initMs, cpuMs, memoryPeakBytes } = outcome;
    const path: Path | "none" = outcome.path ?? "none";
    const start: StartKind | "none" = outcome.start ?? "none";
    const how = { path, start, faas_trigger: trigger };
    if (status === "ok") this.#invocations.inc(how);
    else if (status === "cancelled") this.#cancelled.inc(how);
    else {
      this.#errors.inc({ path, faas_trigger: trigger, error_type: errorCode ?? "internal" });
      if (status === "function_timeout") this.#timeouts.inc(how);
    }
    // What got no sandbox has run for no time.
    if (outcome.start === undefined) return;
    this.#invokeSeconds.observe(how, outcome.durationMs / 1000);
    if (memoryPeakBytes !== undefined) this.#memoryBytes.observe({ path }, memoryPeakBytes);
    if (cpuMs !== undefined) this.#cpuSeconds.observe({ path }, cpuMs / 1000);
    if (!COLD.has(outcome.start)) return;
    this.#coldStarts.inc({ path, start });
    if (initMs !== undefined) this.#initSeconds.observe({ path, start }, initMs / 1000);
  }
}
