import { Counter, collectDefaultMetrics, Registry } from "prom-client";

export { Counter, Gauge, Histogram, Registry } from "prom-client";

/** Seconds, from 0.1 ms to 10 s: a warm call is below a millisecond, a cold start some tens. */
export const DURATION_BUCKETS_SECONDS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** From 2 MiB to the 4 GiB that a sandbox may have, doubling. */
export const MEMORY_BUCKETS_BYTES = Array.from({ length: 12 }, (_, at) => 2 ** (21 + at));

/** A metric's name: `cloister_<component>_<what>_<unit>`, where OpenTelemetry's conventions have none. */
export const metricName = (component: string, what: string): string =>
  `cloister_${component}_${what}`;

/** A registry with what Node itself has to say. */
export function createRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}

/** Of the traces that a service sends. */
export const spansCounter = (component: string, registry: Registry): Counter<"outcome"> =>
  new Counter({
    name: metricName(component, "spans_total"),
    help: "Spans by outcome: made, sent to the receiver of traces, failed to be; what was made and is neither waits, or was dropped by a full queue",
    labelNames: ["outcome"],
    registers: [registry],
  });
