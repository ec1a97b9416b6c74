import assert from "node:assert/strict";
import { after, afterEach, describe, test } from "node:test";
import { Functions, MAJORS } from "./functions.ts";

const json = (body: Buffer): unknown => JSON.parse(body.toString());

for (const major of MAJORS)
  describe(`node ${major}: traces`, () => {
    const functions = new Functions(major);
    afterEach(() => functions.closeRunners());
    after(() => functions.remove());

    test("a handler sees its trace as Lambda tells it, and no other call's", async () => {
      const runner = await functions.serve(
        "export const handler = async () => [process.env._X_AMZN_TRACE_ID ?? null];",
      );
      const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
      const told = ["Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"];
      for (const kind of ["event", "http"] as const) {
        const body = kind === "event" ? { body: "{}" } : {};
        const headers: [string, string][] = [["traceparent", traceparent]];
        const seen = await runner.invoke({ kind, headers, ...body });
        assert.deepEqual(json(seen.body), told);
        for (const other of [[], [["traceparent", "00-x"]]] as [string, string][][])
          assert.deepEqual(json((await runner.invoke({ kind, headers: other, ...body })).body), [
            null,
          ]);
      }
      const app = await functions.serve(
        "export default { fetch: (r) => Response.json([...r.headers]) };",
      );
      const seen = await app.invoke({
        kind: "event",
        body: "{}",
        headers: [
          ["traceparent", traceparent],
          ["x-a", "b"],
        ],
      });
      assert.deepEqual(json(seen.body), [
        ["content-type", "application/json"],
        ["traceparent", traceparent],
      ]);
    });
  });
