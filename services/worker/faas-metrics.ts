import type { StartKind } from "#contracts/function";
import {
  Counter,
  DURATION_BUCKETS_SECONDS,
  MEMORY_BUCKETS_BYTES,
  type Registry,
} from "#telemetry/metrics";
import { type Series, SeriesHistogram } from "#telemetry/series-histogram";
import type { InvocationOutcome } from "./invoke/context.ts";

/** Starts that made a sandbox, or gave one its function, for the call. */
const COLD: ReadonlySet<StartKind | "none"> = new Set(["cold", "prepared", "restored"] as const);

type HowRun = "path" | "start" | "faas_trigger";
const HOW_RUN = ["path", "start", "faas_trigger"] as const;

/** What is counted of calls that were run in the same way. */
interface Tally {
  labels: Record<HowRun, string>;
  invocations: number;
  timeouts: number;
  cancelled: number;
  /** Undefined where a start is not cold. */
  coldStarts: number | undefined;
  invokeSeconds: Series;
  initSeconds: Series;
  /** The same for all starts of a path. */
  memoryBytes: Series;
  cpuSeconds: Series;
}

/**
 * What OpenTelemetry's semantic conventions for functions as a service name (`faas.*`), in Prometheus's spelling: dots as underscores, the unit and
 * `_total` at the end. Labels are few and fixed: never a tenant, a function or an invocation.
 */
export class FaasMetrics {
  readonly #tallies = new Map<string, Map<string, Map<string, Tally>>>();
  readonly #errors: Counter<"path" | "faas_trigger" | "error_type">;
  readonly #invokeSeconds: SeriesHistogram;
  readonly #initSeconds: SeriesHistogram;
  readonly #memoryBytes: SeriesHistogram;
  readonly #cpuSeconds: SeriesHistogram;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#counter(
      registry,
      "faas_invocations_total",
      "Invocations that ended well: the function's whole answer was passed on",
      ({ invocations }) => invocations,
    );
    this.#errors = new Counter({
      name: "faas_errors_total",
      help: "Invocations that ended with an error, by code of the catalogue; timeouts are among them, callers that went away are not",
      labelNames: ["path", "faas_trigger", "error_type"],
      registers,
    });
    this.#counter(
      registry,
      "faas_timeouts_total",
      "Invocations that took longer than their function may",
      ({ timeouts }) => timeouts,
    );
    this.#counter(
      registry,
      "cloister_worker_cancelled_total",
      "Invocations whose caller went away before they ended",
      ({ cancelled }) => cancelled,
    );
    this.#counter(
      registry,
      "faas_coldstarts_total",
      "Invocations for which a sandbox was made, or given its function: all but warm and reset ones",
      ({ coldStarts }) => coldStarts,
    );
    this.#invokeSeconds = new SeriesHistogram({
      name: "faas_invoke_duration_seconds",
      help: "From when the function could see the call to the end of its answer",
      buckets: DURATION_BUCKETS_SECONDS,
      registry,
    });
    this.#initSeconds = new SeriesHistogram({
      name: "faas_init_duration_seconds",
      help: "What a cold start cost its caller: from asking for a sandbox to when the function could see the call",
      buckets: DURATION_BUCKETS_SECONDS,
      registry,
    });
    this.#memoryBytes = new SeriesHistogram({
      name: "faas_mem_usage_bytes",
      help: "Most memory that the invocation's sandbox has had",
      buckets: MEMORY_BUCKETS_BYTES,
      registry,
    });
    this.#cpuSeconds = new SeriesHistogram({
      name: "faas_cpu_usage_seconds",
      help: "Processor time of an invocation",
      buckets: DURATION_BUCKETS_SECONDS,
      registry,
    });
  }

  finished(outcome: InvocationOutcome): void {
    const { status, trigger } = outcome;
    const path = outcome.path ?? "none";
    const tally = this.#tallyOf(path, outcome.start ?? "none", trigger);
    if (status === "ok") tally.invocations++;
    else if (status === "cancelled") tally.cancelled++;
    else {
      const error_type = outcome.errorCode ?? "internal";
      this.#errors.inc({ path, faas_trigger: trigger, error_type });
      if (status === "function_timeout") tally.timeouts++;
    }
    // What got no sandbox has run for no time.
    if (outcome.start === undefined) return;
    tally.invokeSeconds.observe(outcome.durationMs / 1000);
    if (outcome.memoryPeakBytes !== undefined) tally.memoryBytes.observe(outcome.memoryPeakBytes);
    if (outcome.cpuMs !== undefined) tally.cpuSeconds.observe(outcome.cpuMs / 1000);
    if (tally.coldStarts === undefined) return;
    tally.coldStarts++;
    if (outcome.initMs !== undefined) tally.initSeconds.observe(outcome.initMs / 1000);
  }

  #tallyOf(path: string, start: StartKind | "none", faas_trigger: string): Tally {
    const known = this.#tallies.get(path)?.get(start)?.get(faas_trigger);
    if (known) return known;
    const labels = { path, start, faas_trigger };
    const tally: Tally = {
      labels,
      invocations: 0,
      timeouts: 0,
      cancelled: 0,
      coldStarts: COLD.has(start) ? 0 : undefined,
      invokeSeconds: this.#invokeSeconds.of(labels),
      initSeconds: this.#initSeconds.of({ path, start }),
      memoryBytes: this.#memoryBytes.of({ path }),
      cpuSeconds: this.#cpuSeconds.of({ path }),
    };
    const starts = this.#tallies.get(path) ?? new Map<string, Map<string, Tally>>();
    const triggers = starts.get(start) ?? new Map<string, Tally>();
    this.#tallies.set(path, starts);
    starts.set(start, triggers);
    triggers.set(faas_trigger, tally);
    return tally;
  }

  *#all(): Iterable<Tally> {
    for (const starts of this.#tallies.values())
      for (const triggers of starts.values()) yield* triggers.values();
  }

  /** A counter of tallies, added up when somebody asks. */
  #counter(
    registry: Registry,
    name: string,
    help: string,
    countOf: (tally: Tally) => number | undefined,
  ): void {
    const all = () => this.#all();
    const counter = new Counter({
      name,
      help,
      labelNames: HOW_RUN,
      registers: [registry],
      collect() {
        counter.reset();
        for (const tally of all()) {
          const count = countOf(tally);
          if (count !== undefined) counter.inc(tally.labels, count);
        }
      },
    });
  }
}
