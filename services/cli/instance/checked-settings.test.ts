import assert from "node:assert/strict";
import { test } from "node:test";
import { Failure } from "../failure.ts";
import { checkSettings } from "./checked-settings.ts";

test("a setting that no service would start with is told before any does", () => {
  checkSettings({ CLOISTER_IDLE_MS: "500", OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318" });
  for (const [name, value] of [
    ["CLOISTER_IDLE_MS", "1"],
    ["CLOISTER_RETENTION_DAYS", "0"],
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"],
  ] as const)
    assert.throws(
      () => checkSettings({ [name]: value }),
      (error: Error) => error instanceof Failure && error.message.includes(`: ${name}: `),
    );
});
