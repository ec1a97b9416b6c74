import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy } from "./client.ts";
import { OtlpReceiver, type ReceivedSpan } from "./otlp-receiver.ts";

const SERVER = 2;
const CONSUMER = 5;
const ERROR = 2;
const TRACE = "0af7651916cd43dd8448eb211c80319c";
const CALLER = "b7ad6b7169203331";

/** What each function answers with: the headers of its trace, and Lambda's name for it. */
const SHOW = `
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/throws") throw new Error("on purpose");
    return Response.json([request.headers.get("traceparent"), request.headers.get("tracestate")]);
  },
};`;
const HANDLER =
  "export const handler = async (event) => [event, process.env._X_AMZN_TRACE_ID ?? null];";

/** Traces of real calls: gateway, queue, worker and sandbox of a started service, and a receiver that takes, fails or hangs. */
describe("traces", { timeout: 300_000 }, () => {
  let receiver: OtlpReceiver;
  let instance: Instance;
  before(async () => {
    receiver = await OtlpReceiver.listen();
    instance = await startInstance({
      env: {
        OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
        OTEL_EXPORTER_OTLP_TIMEOUT: "1000",
        OTEL_BSP_SCHEDULE_DELAY: "50",
        OTEL_BSP_MAX_QUEUE_SIZE: "64",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "32",
        // None waits: a restore is then a part of its call.
        CLOISTER_CLONES_PER_FUNCTION: "0",
        OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test",
      },
    });
    await deploy(instance, { name: "show", files: { "index.mjs": SHOW } });
    await deploy(instance, { name: "handler", files: { "index.mjs": HANDLER } });
  });
  after(async () => {
    await instance?.stop();
    await receiver?.close();
  });

  const traceOf = (response: Response): string => {
    const [, traceId = "", , flags] = (response.headers.get("traceresponse") ?? "").split("-");
    assert.match(traceId, /^[0-9a-f]{32}$/);
    assert.equal(flags, "01");
    return traceId;
  };

  /** Of a trace whose spans have all come: both root spans of gateway and worker, which come last. */
  const spansOf = (traceId: string): Promise<Map<string, ReceivedSpan>> =>
    receiver.until(() => {
      const found = receiver.spans.filter((span) => span.traceId === traceId);
      const kinds = found.map(({ kind }) => kind);
      if (!kinds.includes(SERVER) || !kinds.includes(CONSUMER)) return undefined;
      const names = found.map(({ name }) => name.split(" ")[0] ?? "");
      assert.deepEqual(new Set(names).size, names.length, "no span comes twice");
      return new Map(found.map((span, at) => [names[at] ?? "", span]));
    });

  function checkTree(spans: Map<string, ReceivedSpan>, parents: Record<string, string>): void {
    assert.deepEqual([...spans.keys()].sort(), Object.keys(parents).sort());
    for (const [name, parent] of Object.entries(parents))
      assert.equal(spans.get(name)?.parentSpanId, spans.get(parent)?.spanId ?? parent, name);
    for (const [name, span] of spans) {
      const [began, ended] = [BigInt(span.startTimeUnixNano), BigInt(span.endTimeUnixNano)];
      assert.ok(began <= ended, `${name} ends before it begins`);
      // Marks are rounded, and clocks of two processes read: a tenth of a millisecond.
      const above = [...spans.values()].find(({ spanId }) => spanId === span.parentSpanId);
      if (above && name !== "invoke" && name !== "queue")
        assert.ok(began >= BigInt(above.startTimeUnixNano) - 100_000n, `${name} begins early`);
    }
  }

  test("a caller's trace goes through gateway, queue and worker into the function, and back", async () => {
    for (const start of [/^(cold|prepared)$/, /^warm$/]) {
      receiver.spans.length = 0;
      const response = await call(instance, "show", "/some/path?secret=1", {
        headers: { traceparent: `00-${TRACE}-${CALLER}-01`, tracestate: "vendor=a1,other=b" },
      });
      const [traceparent, tracestate] = (await response.json()) as string[];
      assert.equal(traceOf(response), TRACE);
      const spans = await spansOf(TRACE);
      const warm = start.test("warm");
      const { invoke, GET: request, handler } = Object.fromEntries(spans);
      const parts = warm
        ? {}
        : Object.fromEntries(
            [...spans.keys()]
              .filter((name) => /^(create|runtime|assign|init)$/.test(name))
              .map((name) => [name, "acquire"]),
          );
      if (!warm) assert.ok("init" in parts, "a start that was not warm tells of its parts");
      checkTree(spans, {
        GET: CALLER,
        queue: "GET",
        invoke: "GET",
        place: "invoke",
        acquire: "invoke",
        handler: "invoke",
        reply: "invoke",
        ...parts,
      });
      assert.equal(traceparent, `00-${TRACE}-${handler?.spanId}-01`);
      assert.equal(tracestate, "vendor=a1,other=b");
      assert.equal(response.headers.get("traceresponse"), `00-${TRACE}-${request?.spanId}-01`);
      assert.equal(request?.service, "cloister-gateway");
      assert.equal(invoke?.service, "cloister-worker");
      assert.deepEqual(
        ["http.route", "url.path", "faas.invoked_name", "cloister.path", "faas.invocation_id"].map(
          (name) => request?.attributes[name],
        ),
        [
          "/f/{function}/{path}",
          "/f/show/some/path",
          "show",
          "container",
          response.headers.get("cloister-invocation-id"),
        ],
      );
      assert.equal(String(request?.attributes["http.response.status_code"]), "200");
      assert.match(String(invoke?.attributes["cloister.start"]), start);
      assert.equal(invoke?.attributes["faas.coldstart"], !warm);
      assert.equal(invoke?.attributes["faas.name"], "show");
      assert.equal(invoke?.attributes["faas.trigger"], "http");
      assert.ok(!JSON.stringify([...spans.values()]).includes("secret"), "a query is nobody's");
    }
  });

  test("headers that are no trace begin a new one; what the caller said of them goes no further", async () => {
    for (const traceparent of [
      undefined,
      "00-0-1-01",
      `00-${"0".repeat(32)}-${CALLER}-01`,
      `ff-${TRACE}-${CALLER}-01`,
      `00-${TRACE}-${CALLER}-01-more`,
    ]) {
      const headers = { tracestate: "vendor=a1", ...(traceparent ? { traceparent } : {}) };
      const response = await call(instance, "show", "/", { headers });
      const [seen, tracestate] = (await response.json()) as (string | null)[];
      const traceId = traceOf(response);
      assert.notEqual(traceId, TRACE);
      assert.ok(seen?.startsWith(`00-${traceId}-`), String(seen));
      assert.equal(tracestate, null);
      assert.equal((await spansOf(traceId)).get("GET")?.parentSpanId, undefined);
    }
  });

  test("a caller that does not record is not recorded, and its function sees so", async () => {
    receiver.spans.length = 0;
    const unsampled = await call(instance, "show", "/", {
      headers: { traceparent: `00-${TRACE}-${CALLER}-00` },
    });
    const [traceparent] = (await unsampled.json()) as string[];
    assert.match(traceparent ?? "", new RegExp(`^00-${TRACE}-(?!${CALLER})[0-9a-f]{16}-00$`));
    // One after it, whose spans come: those of the one before would have come sooner.
    await spansOf(traceOf(await call(instance, "show")));
    assert.deepEqual(
      receiver.spans.filter(({ traceId }) => traceId === TRACE),
      [],
    );
  });

  test("an event's handler has its trace as Lambda tells it", async () => {
    const response = await fetch(`${instance.url}/v1/functions/handler/invocations`, {
      method: "POST",
      headers: { authorization: `Bearer ${instance.key}`, "content-type": "application/json" },
      body: "{}",
    });
    const [, told] = (await response.json()) as [unknown, string];
    const traceId = traceOf(response);
    const spans = await spansOf(traceId);
    assert.equal(spans.get("invoke")?.attributes["faas.trigger"], "other");
    assert.equal(
      told,
      `Root=1-${traceId.slice(0, 8)}-${traceId.slice(8)};Parent=${spans.get("handler")?.spanId};Sampled=1`,
    );
  });

  test("a micro-VM that is restored for a call tells so, and its function is in the trace as well", async () => {
    await deploy(instance, { name: "vm", isolation: "microvm", files: { "index.mjs": SHOW } });
    // Nothing tells when a snapshot is made.
    for (let state = "making"; state === "making"; ) {
      const about = await fetch(`${instance.url}/v1/functions/vm`, {
        headers: { authorization: `Bearer ${instance.key}` },
      });
      ({ state } = ((await about.json()) as { snapshot: { state: string } }).snapshot);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const response = await call(instance, "vm");
    assert.equal(response.headers.get("cloister-start"), "restored");
    const spans = await spansOf(traceOf(response));
    const [traceparent] = (await response.json()) as string[];
    assert.equal(traceparent?.split("-")[2], spans.get("handler")?.spanId);
    const root = spans.get("GET");
    assert.equal(root?.parentSpanId, undefined);
    spans.delete("GET");
    const made = spans.has("create") ? { create: "acquire" } : {};
    checkTree(spans, {
      ...made,
      queue: root?.spanId ?? "",
      invoke: root?.spanId ?? "",
      place: "invoke",
      acquire: "invoke",
      restore: "acquire",
      renew: "restore",
      handler: "invoke",
      reply: "invoke",
    });
    const { invoke } = Object.fromEntries(spans);
    assert.equal(invoke?.attributes["cloister.path"], "microvm");
    assert.equal(invoke?.attributes["faas.coldstart"], true);
  });

  test("failures are told: the function's as an error, the caller's with its code alone", async () => {
    const thrown = await call(instance, "show", "/throws");
    assert.equal(thrown.status, 500);
    const spans = await spansOf(traceOf(thrown));
    for (const name of ["GET", "invoke", "handler"])
      assert.equal(spans.get(name)?.status.code, ERROR, name);
    assert.equal(spans.get("invoke")?.attributes["error.type"], "function_error");
    assert.ok(!JSON.stringify([...spans.values()]).includes("on purpose"), "its words are its own");
    const unknown = await call(instance, "not-there");
    assert.equal(unknown.status, 404);
    const traceId = traceOf(unknown);
    const alone = await receiver.until(() =>
      receiver.spans.find((span) => span.traceId === traceId && span.kind === SERVER),
    );
    assert.notEqual(alone.status.code, ERROR);
    assert.equal(alone.attributes["error.type"], "function_not_found");
  });

  test("a receiver that fails or hangs harms no call, and its queue is bounded", async () => {
    for (const mode of ["fail", "hang"] as const) {
      receiver.mode = mode;
      receiver.refused = 0;
      // Eight spans each: far more than queue and batch hold together.
      for (let round = 0; round < 5; round++) {
        const calls = Array.from({ length: 10 }, () => call(instance, "show"));
        for (const response of await Promise.all(calls)) {
          assert.equal(response.status, 200);
          await response.arrayBuffer();
        }
      }
      await receiver.until(() => (receiver.refused > 1 ? true : undefined));
      assert.equal((await call(instance, "show")).status, 200);
      const metrics = await (await fetch(`${instance.url}/metrics`)).text();
      const failed = /^cloister_gateway_spans_total\{outcome="failed"\} (\d+)$/m.exec(metrics)?.[1];
      if (mode === "fail") assert.ok(Number(failed) > 0, String(failed));
    }
    receiver.mode = "take";
    receiver.spans.length = 0;
    // Exports that hang are given up after their timeout; then spans come again, and both queues have room.
    await receiver.until(() => {
      const services = new Set(receiver.spans.map(({ service }) => service));
      return services.size === 2 ? true : undefined;
    });
    await spansOf(traceOf(await call(instance, "show")));
    // Left hanging, the service stops as usual: `stop` rejects when `up` does not end with 0.
    receiver.mode = "hang";
    assert.equal((await call(instance, "show")).status, 200);
  });
});
