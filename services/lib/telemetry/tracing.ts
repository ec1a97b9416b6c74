/** A span that is known to others by its ids before it is over (W3C Trace Context). */
export interface TraceContext {
  traceId: string;
  spanId: string;
  /** Absent at the root of a trace. */
  parentSpanId?: string;
  /** Whether its spans are recorded. */
  sampled: boolean;
  /** What others keep in the trace, passed on as it came. */
  state?: string;
}

export interface FinishedSpan {
  context: TraceContext;
  name: string;
  kind: "server" | "consumer" | "internal";
  /** Wall clock, ms with fractions. */
  beganMs: number;
  endedMs: number;
  attributes: Record<string, string | number | boolean>;
  failed?: boolean;
}

/** What a process does with traces when they are on. None of it waits, throws or holds more than its queue. */
export interface Tracing {
  /** The span of a request that came with these headers: in the caller's trace where they are valid, else in a new one. */
  enter(traceparent: unknown, tracestate: unknown, name: string): TraceContext;
  /** A span of this process under one of another; undefined when that is not recorded, or no span at all. */
  follow(traceparent: string, tracestate: string | undefined): TraceContext | undefined;
  childOf(parent: TraceContext): TraceContext;
  finished(span: FinishedSpan): void;
  /** Sends what waits, for a bounded time. */
  close(): Promise<void>;
}

export interface TracingOptions {
  /** `gateway` or `worker`. */
  component: string;
  instanceId: string;
  /** How many spans were made, sent, or could not be sent; what was made and is neither has been dropped by a full queue, or waits. */
  counted: (outcome: "made" | "sent" | "failed", spans: number) => void;
  onProblem: (error: Error) => void;
}

export const traceparentOf = ({ traceId, spanId, sampled }: TraceContext): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`;

/** Headers in which the trace is `context`'s, whatever they said of one before. */
export function inTrace(headers: [string, string][], context: TraceContext): [string, string][] {
  const kept = headers.filter(([name]) => name !== "traceparent" && name !== "tracestate");
  kept.push(["traceparent", traceparentOf(context)]);
  if (context.state !== undefined) kept.push(["tracestate", context.state]);
  return kept;
}
