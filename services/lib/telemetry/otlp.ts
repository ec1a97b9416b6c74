import {
  type HrTime,
  ROOT_CONTEXT,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from "@opentelemetry/api";
import { ExportResultCode, parseTraceParent, TraceState } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  RandomIdGenerator,
  type ReadableSpan,
  type Sampler,
  SamplingDecision,
  type SpanExporter,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace";
import { ATTR_SERVICE_NAME, ATTR_SERVICE_VERSION } from "@opentelemetry/semantic-conventions";
import type { TraceSettings } from "#config/trace-environment";
import type { FinishedSpan, TraceContext, Tracing, TracingOptions } from "./tracing.ts";

/** A receiver that hangs does not keep a process from ending for longer than this, ms. */
const CLOSE_BOUND_MS = 2000;
const VERSION = "0.1.0";
const SCOPE = { name: "cloister", version: VERSION };
const KINDS = {
  server: SpanKind.SERVER,
  consumer: SpanKind.CONSUMER,
  internal: SpanKind.INTERNAL,
} as const;

/** Spans to an OTLP receiver, in batches, in the background. Endpoint, headers, timeout and certificates are the exporter's to read from the environment. */
export function openOtlp(settings: TraceSettings, options: TracingOptions): Tracing {
  const ids = new RandomIdGenerator();
  const ratio = new TraceIdRatioBasedSampler(settings.ratio);
  const sampler: Sampler = settings.parentBased ? new ParentBasedSampler({ root: ratio }) : ratio;
  const resource = defaultResource()
    .merge(
      resourceFromAttributes({
        [ATTR_SERVICE_NAME]: `cloister-${options.component}`,
        [ATTR_SERVICE_VERSION]: VERSION,
        "service.instance.id": options.instanceId,
        "cloister.component": options.component,
      }),
    )
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
    .merge(detectResources({ detectors: [envDetector] }));
  const processor = new BatchSpanProcessor({
    exporter: counting(new OTLPTraceExporter(), options),
    ...(settings.scheduleDelayMs === undefined
      ? {}
      : { scheduledDelayMillis: settings.scheduleDelayMs }),
    ...(settings.exportTimeoutMs === undefined
      ? {}
      : { exportTimeoutMillis: settings.exportTimeoutMs }),
    ...(settings.maxQueueSize === undefined ? {} : { maxQueueSize: settings.maxQueueSize }),
    ...(settings.maxBatchSize === undefined ? {} : { maxExportBatchSize: settings.maxBatchSize }),
  });

  const childOf = ({ traceId, spanId, sampled, state }: TraceContext): TraceContext => ({
    traceId,
    spanId: ids.generateSpanId(),
    parentSpanId: spanId,
    sampled,
    ...(state === undefined ? {} : { state }),
  });

  return {
    enter(traceparent, tracestate, name) {
      const parent = remote(traceparent, tracestate);
      const traceId = parent?.traceId ?? ids.generateTraceId();
      const context = parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
      const { decision } = sampler.shouldSample(context, traceId, name, SpanKind.SERVER, {}, []);
      const state = parent?.traceState?.serialize();
      return {
        traceId,
        spanId: ids.generateSpanId(),
        ...(parent ? { parentSpanId: parent.spanId } : {}),
        sampled: decision === SamplingDecision.RECORD_AND_SAMPLED,
        ...(state ? { state } : {}),
      };
    },
    follow(traceparent, tracestate) {
      const parent = remote(traceparent, tracestate);
      if (!parent || (parent.traceFlags & TraceFlags.SAMPLED) === 0) return undefined;
      const state = parent.traceState?.serialize();
      const { traceId, spanId } = parent;
      return { traceId, spanId, sampled: true, ...(state ? { state } : {}) };
    },
    childOf,
    finished(span) {
      if (!span.context.sampled) return;
      options.counted("made", 1);
      processor.onEnd(readable(span, resource));
    },
    async close() {
      let timer: NodeJS.Timeout | undefined;
      const bound = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_BOUND_MS);
      });
      await Promise.race([processor.shutdown().catch(() => {}), bound]);
      clearTimeout(timer);
    },
  };
}

/** A caller's span, when its headers are valid; a state that is not is left out. */
function remote(traceparent: unknown, tracestate: unknown): SpanContext | undefined {
  if (typeof traceparent !== "string") return undefined;
  const parsed = parseTraceParent(traceparent);
  if (!parsed) return undefined;
  const state = typeof tracestate === "string" ? new TraceState(tracestate) : undefined;
  return { ...parsed, isRemote: true, ...(state ? { traceState: state } : {}) };
}

const hrTime = (ms: number): HrTime => {
  const seconds = Math.floor(ms / 1000);
  return [seconds, Math.floor((ms - seconds * 1000) * 1e6)];
};

function readable(span: FinishedSpan, resource: ReadableSpan["resource"]): ReadableSpan {
  const { traceId, spanId, parentSpanId } = span.context;
  const context: SpanContext = { traceId, spanId, traceFlags: TraceFlags.SAMPLED };
  const endedMs = Math.max(span.beganMs, span.endedMs);
  return {
    name: span.name,
    kind: KINDS[span.kind],
    spanContext: () => context,
    ...(parentSpanId === undefined
      ? {}
      : { parentSpanContext: { traceId, spanId: parentSpanId, traceFlags: TraceFlags.SAMPLED } }),
    startTime: hrTime(span.beganMs),
    endTime: hrTime(endedMs),
    duration: hrTime(endedMs - span.beganMs),
    status: { code: span.failed ? SpanStatusCode.ERROR : SpanStatusCode.UNSET },
    attributes: span.attributes,
    links: [],
    events: [],
    ended: true,
    resource,
    instrumentationScope: SCOPE,
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

/** An exporter whose outcome is counted, and whose failures are told once per batch. */
function counting(exporter: SpanExporter, { counted, onProblem }: TracingOptions): SpanExporter {
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const sent = result.code === ExportResultCode.SUCCESS;
        counted(sent ? "sent" : "failed", spans.length);
        if (!sent) onProblem(result.error ?? new Error("The receiver of traces took nothing"));
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}
