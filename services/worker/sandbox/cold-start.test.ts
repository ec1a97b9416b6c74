import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { functionConfigSchema, type VersionSpec } from "#contracts/function";
import { initOf, ProcessLauncher, shapeOf, wholeAnswer } from "./index.ts";

const RUNNER = join(import.meta.dirname, "../../../runtime/runners/node/runner.mjs");
const folder = mkdtempSync(join(tmpdir(), "cloister-cold-start-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const launcher = new ProcessLauncher(() => [process.execPath, RUNNER]);

function versionOf(source: string): {
  spec: VersionSpec;
  bundle: { digest: string; path: string };
} {
  const path = mkdtempSync(join(folder, "function-"));
  writeFileSync(join(path, "index.mjs"), source);
  const config = functionConfigSchema.parse({ name: "cold", runtime: "node24" });
  const ids = { versionId: "ver_cold", functionId: "fn_cold", tenantId: "ten_test" };
  const spec = { ...ids, name: "cold", version: 1, bundleDigest: "cold", config };
  return { spec, bundle: { digest: spec.bundleDigest, path } };
}

/** What a fetch handler needs and an event handler does not. */
const LOADED = "process.moduleLoadList.includes('NativeModule internal/deps/undici/undici')";

async function loadsFetch(told: "while it boots" | "when it is ready"): Promise<unknown> {
  const { spec, bundle } = versionOf(`export const handler = async () => ({ fetch: ${LOADED} });`);
  const shape = shapeOf(spec, "container");
  const known = told === "while it boots" ? spec : undefined;
  const assigned = await launcher.launch(shape, "cold", bundle, known);
  const serving = await assigned.initialise(initOf(spec));
  try {
    const { body } = await wholeAnswer(serving, { kind: "event", body: Buffer.from("{}") });
    return JSON.parse(body.toString());
  } finally {
    await serving.end();
  }
}

test("a runner that hears of its function while it boots loads only what that needs", async () => {
  assert.deepEqual(await loadsFetch("while it boots"), { fetch: false });
  assert.deepEqual(await loadsFetch("when it is ready"), { fetch: true });
});

test("a function that cannot be loaded is its own fault, also when the runner heard of it early", async () => {
  const { spec, bundle } = versionOf("throw new Error('at load')");
  const assigned = await launcher.launch(shapeOf(spec, "container"), "cold", bundle, spec);
  const wrong = { code: "function_init_error", message: /at load/ };
  await assert.rejects(assigned.initialise(initOf(spec)), wrong);
  await assigned.ended;
});

test("a runner that ends before it is ready is no fault of the function it has heard of", async () => {
  const { spec, bundle } = versionOf("export const handler = () => 1;");
  const broken = new ProcessLauncher(() => ["/bin/false"]);
  await assert.rejects(broken.launch(shapeOf(spec, "container"), "cold", bundle, spec), {
    code: "sandbox_failed",
  });
});
