import type { Scenario as Executor, Options } from "k6/options";
import {
  type Plan,
  partsOf,
  plannedOf,
  plannedRequests,
  type Step,
  type Stream,
  type Threshold,
} from "./plan.ts";

/** A request that takes longer has failed, s. */
export const TIMEOUT_S = 60;
/** What began within a stream's time may end for so long: longer than a request may take, so that none is cut off and forgotten. */
const GRACE_S = TIMEOUT_S + 5;

/** k6's rates are whole numbers: for so long they say a thousandth of a request a second, s. */
const UNIT_S = 1000;

/** The streams of a plan as k6's scenarios, under their names. `targets` get each request in turn. */
export const executorsOf = ({ streams }: Plan, targets: number): Record<string, Executor> =>
  Object.fromEntries(streams.map((stream) => [stream.name, executorOf(stream, targets)]));

function executorOf(stream: Stream, targets: number): Executor {
  const { startMs, arrival } = stream;
  const shared = { startTime: `${Math.round(startMs)}ms`, gracefulStop: `${GRACE_S}s` };
  switch (arrival.kind) {
    case "rate": {
      const limits = {
        // One made during the run would cost what is measured.
        preAllocatedVUs: arrival.mostInFlight,
        maxVUs: arrival.mostInFlight,
      };
      const [first] = arrival.steps;
      if (first && arrival.steps.length === 1) {
        // k6 wants a whole number for some time: so many for the whole of it.
        const rate = Math.max(1, Math.round(plannedOf(first)));
        const duration = `${Math.round(first.durationMs)}ms`;
        const steady = { executor: "constant-arrival-rate" as const, rate, duration };
        return { ...shared, ...limits, ...steady, timeUnit: duration };
      }
      const perUnit = ({ perSecond }: Step): number => Math.round(perSecond * UNIT_S);
      return {
        ...shared,
        ...limits,
        executor: "ramping-arrival-rate",
        startRate: first ? perUnit(first) : 0,
        timeUnit: `${UNIT_S}s`,
        // A stage that takes no time is a jump.
        stages: arrival.steps.flatMap((step) => [
          { target: perUnit(step), duration: "0s" },
          { target: perUnit(step), duration: `${Math.round(step.durationMs)}ms` },
        ]),
      };
    }
    case "clients":
      return {
        ...shared,
        executor: "constant-vus",
        vus: arrival.clients,
        duration: `${Math.round(arrival.durationMs)}ms`,
      };
    case "once":
      return {
        ...shared,
        executor: "per-vu-iterations",
        vus: stream.requests.length * targets,
        iterations: 1,
        maxDuration: `${GRACE_S}s`,
      };
  }
}

/** k6's name for what a stream has dropped. */
export const droppedMetric = (stream: string): string => `dropped_iterations{scenario:${stream}}`;

/**
 * Thresholds as k6 judges them, over what lib/call.ts records. What k6 cannot say, `p99_over_p50` and what is dropped of one step among several,
 * is left to `./cloister load`. Those on dropped requests that cannot be crossed make k6's summary count them by stream.
 */
export function thresholdsOf({ streams, thresholds }: Plan): NonNullable<Options["thresholds"]> {
  const found: Record<string, string[]> = {};
  for (const { name } of streams) found[droppedMetric(name)] = ["count>=0"];
  for (const threshold of thresholds) {
    const metric = metricOf(threshold, streams);
    if (!metric) continue;
    const known = found[metric.name] ?? [];
    found[metric.name] = [...known, ...rulesOf(threshold, metric.value, streams)];
  }
  return found;
}

function metricOf(
  { measure, stream }: Threshold,
  streams: readonly Stream[],
): { name: string; value: string } | undefined {
  const tagged = (name: string, tags: string[] = []): string => {
    const all = [...(stream === undefined ? [] : [`stream:${stream}`]), ...tags];
    return all.length === 0 ? name : `${name}{${all.join(",")}}`;
  };
  switch (measure) {
    case "p50_ms":
      return { name: tagged("cloister_call_ms"), value: "p(50)" };
    case "p99_ms":
      return { name: tagged("cloister_call_ms"), value: "p(99)" };
    case "first_byte_p99_ms":
      return { name: tagged("cloister_first_byte_ms"), value: "p(99)" };
    case "p99_over_p50":
      return undefined;
    case "dropped": {
      if (stream === undefined) return { name: "dropped_iterations", value: "count" };
      const whole = streams.find((one) => partsOf(one).join() === stream);
      if (!whole) return undefined;
      return { name: droppedMetric(whole.name), value: "count" };
    }
    default:
      return { name: tagged("cloister_calls", [`outcome:${measure}`]), value: "count" };
  }
}

function rulesOf(
  { part, most, least }: Threshold,
  value: string,
  streams: readonly Stream[],
): string[] {
  const planned = streams.reduce((sum, one) => sum + (plannedRequests(one) ?? 0), 0);
  const of = (bound: number): number => (part ? Math.floor(bound * planned) : bound);
  return [
    ...(most === undefined ? [] : [`${value}<=${of(most)}`]),
    ...(least === undefined ? [] : [`${value}>=${of(least)}`]),
  ];
}
