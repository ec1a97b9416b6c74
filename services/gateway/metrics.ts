import type { Path, StartKind } from "#contracts/function";
import {
  Counter,
  createRegistry,
  DURATION_BUCKETS_SECONDS,
  Gauge,
  Histogram,
  metricName,
  spansCounter,
} from "#telemetry/metrics";
import { SeriesHistogram, SeriesTable } from "#telemetry/series-histogram";
import { UsageCounters } from "#telemetry/usage-counters";
import type { CallOutcome } from "./invoke/call-context.ts";

export interface MetricSources {
  /** Calls under way. */
  open: () => number;
  /** Of these, calls no worker has taken yet. */
  waiting: () => number;
  /** Workers connected to this gateway. */
  workers: () => number;
  /** Live nodes that take calls. */
  nodes: () => number;
  /** Calls that wait here for a place at a node. */
  held: () => number;
}

const name = (what: string): string => metricName("gateway", what);

/** What the gateway counts. Labels are few and fixed: never a tenant's or a function's name. */
export class GatewayMetrics {
  readonly registry = createRegistry();
  readonly #invocations: Counter<"code">;
  readonly #invocationSeconds: SeriesTable<Path | "none", StartKind | "none">;
  readonly #requests: Counter<"route" | "status">;
  readonly #requestSeconds: Histogram<"route">;
  readonly problems: Counter<"part">;
  readonly spans: Counter<"outcome">;
  readonly usage = new UsageCounters("gateway", this.registry);

  constructor(sources: MetricSources) {
    const registers = [this.registry];
    this.#invocations = new Counter({
      name: name("invocations_total"),
      help: "Calls of functions that ended, by code of the catalogue; ok when the function's answer was passed on",
      labelNames: ["code"],
      registers,
    });
    const seconds = new SeriesHistogram({
      name: name("invocation_seconds"),
      help: "From the request's head to the end of the answer; path and start are none where no sandbox answered",
      buckets: DURATION_BUCKETS_SECONDS,
      registry: this.registry,
    });
    this.#invocationSeconds = new SeriesTable(seconds, "path", "start");
    this.#requests = new Counter({
      name: name("requests_total"),
      help: "Requests of the API, by route and status class",
      labelNames: ["route", "status"],
      registers,
    });
    this.#requestSeconds = new Histogram({
      name: name("request_seconds"),
      help: "From a request of the API to the head of its answer",
      labelNames: ["route"],
      buckets: DURATION_BUCKETS_SECONDS,
      registers,
    });
    this.problems = new Counter({
      name: name("problems_total"),
      help: "Troubles outside single requests, by part",
      labelNames: ["part"],
      registers,
    });
    this.spans = spansCounter("gateway", this.registry);
    const gauge = (what: string, help: string, read: () => number): void => {
      const made = new Gauge({
        name: name(what),
        help,
        registers,
        collect() {
          made.set(read());
        },
      });
    };
    gauge("open_calls", "Calls of functions under way", sources.open);
    gauge("waiting_calls", "Calls that no worker has taken yet", sources.waiting);
    gauge("nodes", "Live nodes that take calls", sources.nodes);
    gauge("held_calls", "Calls that wait here for a place at a node", sources.held);
    gauge("workers", "Workers connected to this gateway", sources.workers);
  }

  invoked({ code, durationMs, meta }: CallOutcome): void {
    this.#invocations.inc({ code: code ?? "ok" });
    this.#invocationSeconds
      .of(meta?.path ?? "none", meta?.start ?? "none")
      .observe(durationMs / 1000);
  }

  /** `route` is the pattern, never the address. */
  answered(route: string, status: number, durationMs: number): void {
    this.#requests.inc({ route, status: `${Math.floor(status / 100)}xx` });
    this.#requestSeconds.observe({ route }, durationMs / 1000);
  }
}
