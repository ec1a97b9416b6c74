import assert from "node:assert/strict";
import { test } from "node:test";
import { isolationSchema, pathSchema } from "./function.ts";
import { decidePlacement, type Tier } from "./placement.ts";

const TIERS: Tier[] = ["trusted", "standard", "untrusted"];
const NODES = [undefined, [], ["container"], ["container", "microvm"]];

test("no combination runs on less isolation than the function, its tenant or its caller needs", () => {
  for (const isolation of isolationSchema.options)
    for (const tier of TIERS)
      for (const wanted of [undefined, ...pathSchema.options])
        for (const kinds of NODES) {
          const decided = decidePlacement({ isolation, runtime: "node24", wanted, tier, kinds });
          const strong =
            isolation === "microvm" ||
            wanted === "microvm" ||
            (isolation === "auto" && tier !== "trusted");
          assert.ok(decided.reasons.length > 0);
          if ("path" in decided) {
            assert.equal(decided.path, strong ? "microvm" : "container");
            assert.ok(kinds?.includes(decided.path));
          } else if (kinds?.includes("microvm") && kinds.includes("container"))
            // With everything to be had, only a wish for less may be refused.
            assert.ok(strong && wanted === "container", JSON.stringify({ isolation, tier }));
        }
});

test("each refusal has the code of its cause", () => {
  const input = {
    isolation: "auto",
    runtime: "node24",
    wanted: undefined,
    tier: "trusted",
    kinds: ["container"],
  };
  const refusal = (change: object) => {
    const decided = decidePlacement({ ...input, ...change } as Parameters<
      typeof decidePlacement
    >[0]);
    return "refused" in decided ? decided.refused : undefined;
  };
  assert.equal(refusal({}), undefined);
  assert.equal(refusal({ tier: "standard" }), "isolation_unavailable");
  assert.equal(refusal({ wanted: "microvm" }), "isolation_unavailable");
  assert.equal(refusal({ isolation: "microvm", wanted: "container" }), "isolation_not_allowed");
  assert.equal(refusal({ kinds: undefined }), "sandbox_failed");
  const vm = { isolation: "microvm", kinds: ["container", "microvm"] };
  assert.equal(refusal(vm), undefined);
  assert.equal(refusal({ ...vm, runtime: "binary" }), "isolation_unavailable");
});
