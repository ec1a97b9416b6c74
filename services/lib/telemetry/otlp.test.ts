import assert from "node:assert/strict";
import { test } from "node:test";
import { openOtlp } from "./otlp.ts";
import { inTrace, type TraceContext, type Tracing, traceparentOf } from "./tracing.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const CALLER = "b7ad6b7169203331";

async function withTracing(
  settings: { parentBased: boolean; ratio: number },
  use: (tracing: Tracing) => void,
): Promise<void> {
  const tracing = openOtlp(settings, {
    component: "gateway",
    instanceId: "one",
    counted: () => {},
    onProblem: (error) => assert.fail(error),
  });
  use(tracing);
  await tracing.close();
}

test("who is sampled: the caller decides where it may, else a share of the traces", async () => {
  for (const [parentBased, ratio, flags, sampled] of [
    [true, 0, "01", true],
    [true, 1, "00", false],
    [true, 1, undefined, true],
    [true, 0, undefined, false],
    [false, 0, "01", false],
    [false, 1, "00", true],
  ] as const)
    await withTracing({ parentBased, ratio }, (tracing) => {
      const caller = flags && `00-${TRACE}-${CALLER}-${flags}`;
      const context = tracing.enter(caller, undefined, "GET /");
      assert.equal(context.sampled, sampled, `${parentBased} ${ratio} ${flags}`);
      assert.equal(context.parentSpanId, flags && CALLER);
      assert.equal(context.traceId === TRACE, flags !== undefined);
    });
});

test("a share is of traces, and each trace is in it or not wherever it is asked", () =>
  withTracing({ parentBased: true, ratio: 0.5 }, (tracing) => {
    const sampled = Array.from({ length: 2000 }, () =>
      tracing.enter(undefined, undefined, "GET /"),
    );
    const share = sampled.filter((context) => context.sampled).length / 2000;
    assert.ok(share > 0.4 && share < 0.6, String(share));
    for (const context of sampled.slice(0, 20)) {
      const followed = tracing.follow(traceparentOf(context), undefined);
      assert.equal(followed !== undefined, context.sampled);
    }
  }));

test("a trace's state is passed on as far as it is valid, and only with a trace", () =>
  withTracing({ parentBased: true, ratio: 1 }, (tracing) => {
    const traceparent = `00-${TRACE}-${CALLER}-01`;
    const stateOf = (state: unknown, parent: string | undefined = traceparent) =>
      tracing.enter(parent, state, "GET /").state;
    assert.equal(stateOf("a=1, b@c=2"), "a=1,b@c=2");
    assert.equal(stateOf("A=1,b=2"), "b=2");
    assert.equal(stateOf(`a=${"x".repeat(1000)}`), undefined);
    assert.equal(stateOf("a\r\nx: y"), undefined);
    assert.equal(stateOf(["a=1"]), undefined);
    assert.equal(stateOf("a=1", "nonsense"), undefined);
  }));

test("headers name one trace, whatever they named before", () => {
  const context: TraceContext = { traceId: TRACE, spanId: CALLER, sampled: false };
  const headers: [string, string][] = [
    ["traceparent", "x"],
    ["a", "b"],
    ["tracestate", "c=d"],
    ["traceparent", "y"],
  ];
  const traceparent: [string, string] = ["traceparent", `00-${TRACE}-${CALLER}-00`];
  assert.deepEqual(inTrace(headers, context), [["a", "b"], traceparent]);
  assert.deepEqual(inTrace(headers, { ...context, state: "e=f" }), [
    ["a", "b"],
    traceparent,
    ["tracestate", "e=f"],
  ]);
  assert.equal(headers.length, 4);
});
