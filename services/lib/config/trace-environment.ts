import { z } from "zod";

/**
 * What OpenTelemetry's specification calls its environment variables, as far as tracing is concerned (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables). Those of
 * the exporter (endpoint, headers, timeout, compression, certificates) and the resource's its libraries read themselves; here it is checked that they can be used at all.
 */
const url = z.url({ protocol: /^https?$/, error: "must be a URL of http or https" });
const count = (least: number) => z.coerce.number().int().min(least).max(1_000_000);

/** An empty value counts as none: so says the specification. */
const given = <T extends z.ZodType>(schema: T) =>
  z.preprocess((value) => (value === "" ? undefined : value), schema.optional());

const traceEnvironmentSchema = z.object({
  OTEL_SDK_DISABLED: given(z.enum(["true", "false"])),
  OTEL_TRACES_EXPORTER: given(z.enum(["otlp", "none"])),
  OTEL_EXPORTER_OTLP_ENDPOINT: given(url),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: given(url),
  OTEL_EXPORTER_OTLP_PROTOCOL: given(z.literal("http/json")),
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: given(z.literal("http/json")),
  OTEL_TRACES_SAMPLER: given(
    z.enum([
      "always_on",
      "always_off",
      "traceidratio",
      "parentbased_always_on",
      "parentbased_always_off",
      "parentbased_traceidratio",
    ]),
  ),
  OTEL_TRACES_SAMPLER_ARG: given(z.coerce.number().min(0).max(1)),
  OTEL_BSP_SCHEDULE_DELAY: given(count(0)),
  OTEL_BSP_EXPORT_TIMEOUT: given(count(1)),
  OTEL_BSP_MAX_QUEUE_SIZE: given(count(1)),
  OTEL_BSP_MAX_EXPORT_BATCH_SIZE: given(count(1)),
});

export interface TraceSettings {
  /** Whether a caller's decision counts; what is decided where there is none: a share of traces, 0 to 1. */
  parentBased: boolean;
  ratio: number;
  /** Of the queue between calls and exporter: absent means OpenTelemetry's default. */
  scheduleDelayMs?: number;
  exportTimeoutMs?: number;
  maxQueueSize?: number;
  maxBatchSize?: number;
}

/** Undefined when traces are off: no endpoint is set, or it is forbidden. Throws one sentence that names each bad variable. */
export function readTraceSettings(
  env: Record<string, string | undefined> = process.env,
): TraceSettings | undefined {
  const parsed = traceEnvironmentSchema.safeParse(env);
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new Error(`The environment is not valid: ${issues.join("; ")}`);
  }
  const { data } = parsed;
  if (data.OTEL_SDK_DISABLED === "true" || data.OTEL_TRACES_EXPORTER === "none") return undefined;
  if (!data.OTEL_EXPORTER_OTLP_ENDPOINT && !data.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)
    return undefined;
  const sampler = data.OTEL_TRACES_SAMPLER ?? "parentbased_always_on";
  const settings: TraceSettings = {
    parentBased: sampler.startsWith("parentbased_"),
    ratio: sampler.endsWith("always_off")
      ? 0
      : sampler.endsWith("traceidratio")
        ? (data.OTEL_TRACES_SAMPLER_ARG ?? 1)
        : 1,
  };
  if (data.OTEL_BSP_SCHEDULE_DELAY !== undefined)
    settings.scheduleDelayMs = data.OTEL_BSP_SCHEDULE_DELAY;
  if (data.OTEL_BSP_EXPORT_TIMEOUT !== undefined)
    settings.exportTimeoutMs = data.OTEL_BSP_EXPORT_TIMEOUT;
  if (data.OTEL_BSP_MAX_QUEUE_SIZE !== undefined)
    settings.maxQueueSize = data.OTEL_BSP_MAX_QUEUE_SIZE;
  if (data.OTEL_BSP_MAX_EXPORT_BATCH_SIZE !== undefined)
    settings.maxBatchSize = data.OTEL_BSP_MAX_EXPORT_BATCH_SIZE;
  return settings;
}
