import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readEnvironment, required } from "./environment.ts";

/** Every variable the schema reads, found in its source: a default-less one leaves no trace in what is parsed. */
const NAMES = [
  ...readFileSync(join(import.meta.dirname, "environment.ts"), "utf8").matchAll(
    /^ {2}(CLOISTER_\w+):/gm,
  ),
].map(([, name = ""]) => name);

test("README.md's tables name every variable, with its default", () => {
  const readme = readFileSync(join(import.meta.dirname, "../../../README.md"), "utf8");
  const section = /^## Configuration$(.*?)^## /ms.exec(readme)?.[1] ?? "";
  const rows = new Map<string, string>();
  for (const [, names = "", given = ""] of section.matchAll(/^\| (`.+?`) \| .+ \| (.*?) ?\|$/gm))
    for (const [, name = ""] of names.matchAll(/`(\w+)`/g)) rows.set(name, given);
  assert.ok(NAMES.length > 10);
  for (const name of NAMES) assert.ok(rows.has(name), `README.md says nothing of ${name}`);
  for (const [name, value] of Object.entries(readEnvironment({})))
    assert.equal(rows.get(name)?.replaceAll("`", ""), String(value), name);
});

test("a bad value is one sentence that names the variable", () => {
  for (const [name, value] of Object.entries({
    CLOISTER_WORKER_CONCURRENCY: "0",
    CLOISTER_IDLE_MS: "soon",
    CLOISTER_LINK_SECRET: "short",
    CLOISTER_REPLY_LISTEN: "/no/scheme",
    CLOISTER_RETENTION_DAYS: "0",
    CLOISTER_LOG_LEVEL: "loud",
  }))
    assert.throws(() => readEnvironment({ [name]: value }), new RegExp(`not valid: ${name}: `));
});

test("a missing variable is told with who sets it", () => {
  const environment = readEnvironment({ CLOISTER_REDIS_URL: "unix:/redis.sock" });
  assert.equal(required(environment, "CLOISTER_REDIS_URL"), "unix:/redis.sock");
  assert.throws(
    () => required(environment, "CLOISTER_DATABASE_URL"),
    /CLOISTER_DATABASE_URL is not set; \.\/cloister up sets it/,
  );
});
