import assert from "node:assert/strict";
import { test } from "node:test";
import { readTraceSettings } from "./trace-environment.ts";

const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318" };

test("traces are off until an endpoint is set, and where they are forbidden", () => {
  assert.equal(readTraceSettings({}), undefined);
  assert.equal(readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "" }), undefined);
  assert.equal(readTraceSettings({ ...ENDPOINT, OTEL_SDK_DISABLED: "true" }), undefined);
  assert.equal(readTraceSettings({ ...ENDPOINT, OTEL_TRACES_EXPORTER: "none" }), undefined);
  assert.deepEqual(readTraceSettings(ENDPOINT), { parentBased: true, ratio: 1 });
  assert.deepEqual(
    readTraceSettings({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://traces.example/v1/traces" }),
    { parentBased: true, ratio: 1 },
  );
});

test("samplers and the queue are what OpenTelemetry's variables say", () => {
  for (const [sampler, share, settings] of [
    ["always_on", undefined, { parentBased: false, ratio: 1 }],
    ["always_off", undefined, { parentBased: false, ratio: 0 }],
    ["traceidratio", "0.25", { parentBased: false, ratio: 0.25 }],
    ["parentbased_always_off", undefined, { parentBased: true, ratio: 0 }],
    ["parentbased_traceidratio", "0.5", { parentBased: true, ratio: 0.5 }],
    ["parentbased_traceidratio", undefined, { parentBased: true, ratio: 1 }],
  ] as const)
    assert.deepEqual(
      readTraceSettings({
        ...ENDPOINT,
        OTEL_TRACES_SAMPLER: sampler,
        OTEL_TRACES_SAMPLER_ARG: share,
      }),
      settings,
    );
  assert.deepEqual(
    readTraceSettings({
      ...ENDPOINT,
      OTEL_BSP_SCHEDULE_DELAY: "100",
      OTEL_BSP_EXPORT_TIMEOUT: "2000",
      OTEL_BSP_MAX_QUEUE_SIZE: "10",
      OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "5",
    }),
    {
      parentBased: true,
      ratio: 1,
      scheduleDelayMs: 100,
      exportTimeoutMs: 2000,
      maxQueueSize: 10,
      maxBatchSize: 5,
    },
  );
});

test("a bad value is one sentence that names the variable, not a trace that never comes", () => {
  for (const [name, value] of Object.entries({
    OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318",
    OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
    OTEL_TRACES_EXPORTER: "zipkin",
    OTEL_TRACES_SAMPLER: "sometimes",
    OTEL_TRACES_SAMPLER_ARG: "1.5",
    OTEL_BSP_MAX_QUEUE_SIZE: "0",
    OTEL_BSP_SCHEDULE_DELAY: "soon",
    OTEL_SDK_DISABLED: "maybe",
  }))
    assert.throws(
      () => readTraceSettings({ ...ENDPOINT, [name]: value }),
      new RegExp(`^Error: The environment is not valid: ${name}: [^;]+$`),
    );
});
