import type { TraceSettings } from "#config/trace-environment";
import type { Tracing, TracingOptions } from "./tracing.ts";

/** Undefined when traces are off; OpenTelemetry's libraries are loaded only when they are on. */
export async function openTracing(
  settings: TraceSettings | undefined,
  options: TracingOptions,
): Promise<Tracing | undefined> {
  if (!settings) return undefined;
  const { openOtlp } = await import("./otlp.ts");
  return openOtlp(settings, options);
}
