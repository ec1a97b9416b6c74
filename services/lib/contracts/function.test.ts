import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { functionConfigSchema, LIMITS } from "./function.ts";

const ROOT = join(import.meta.dirname, "../../..");
const UNITS: Record<string, number> = { KiB: 1024, MiB: 1024 * 1024 };

test("SPECIFICATION.md names every limit with its value", () => {
  const text = readFileSync(join(ROOT, "SPECIFICATION.md"), "utf8");
  const said: Record<string, number> = {};
  for (const [, value, unit, name = ""] of text.matchAll(
    /^\| .+? \| (\d+)(?: (KiB|MiB))? \| `(\w+)` \| .+ \|$/gm,
  ))
    said[name] = Number(value) * (unit === undefined ? 1 : (UNITS[unit] ?? Number.NaN));
  assert.deepEqual(said, { ...LIMITS });
});

test("README.md shows every field of cloister.json with its default", () => {
  const text = readFileSync(join(ROOT, "README.md"), "utf8");
  const block = /```json\n(.*?)```/s.exec(text)?.[1];
  assert.ok(block);
  const { name, entry, ...shown } = JSON.parse(block);
  assert.equal(typeof name, "string");
  assert.equal(typeof entry, "string");
  assert.ok("entry" in functionConfigSchema.shape);
  const { name: _, ...defaults } = functionConfigSchema.parse({ name: "x" });
  assert.deepEqual(shown, defaults);
});

const refused: [string, Record<string, unknown>][] = [
  ["a field with a typing error", { memoryMB: 128 }],
  ["too little memory", { memoryMb: 63 }],
  ["too much memory", { memoryMb: 4097 }],
  ["no time at all", { timeoutMs: 0 }],
  ["more than 15 minutes", { timeoutMs: 900_001 }],
  ["a concurrency of none", { concurrency: 0 }],
  ["a runtime there is no image for", { runtime: "deno" }],
  ["an entry outside the bundle", { entry: "../index.mjs" }],
  ["an absolute entry", { entry: "/etc/passwd" }],
  ["a name that is no DNS label", { name: "Hello World" }],
  ["a variable of the platform's", { env: { CLOISTER_KEY: "x" } }],
  ["a variable that loads code", { env: { LD_PRELOAD: "x" } }],
  ["node's options", { env: { NODE_OPTIONS: "--inspect" } }],
  ["more environment than 32 KiB", { env: Object.fromEntries(manyVariables()) }],
];
for (const [what, fields] of refused)
  test(`a configuration with ${what} is refused`, () => {
    const parsed = functionConfigSchema.safeParse({ name: "x", ...fields });
    assert.equal(parsed.success, false);
  });

function* manyVariables(): Generator<[string, string]> {
  for (let n = 0; n < 5; n++) yield [`V${n}`, "x".repeat(8000)];
}
