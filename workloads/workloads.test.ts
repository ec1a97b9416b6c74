import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { FunctionRunners } from "#testkit/function-runner";

type Answers = Record<string, Record<string, unknown>>;
const EXPECTED: Record<string, Answers> = JSON.parse(
  readFileSync(join(import.meta.dirname, "expected.json"), "utf8"),
);
const NAMES = readdirSync(import.meta.dirname, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .sort();

const runners = new FunctionRunners();
after(() => runners.close());

/** A port answers what the first one does. */
const expectedOf = (name: string): Answers => EXPECTED[name.replace(/-python$/, "")] ?? {};

for (const name of NAMES)
  test(`${name} answers what is expected in every size, and refuses what it does not know`, async () => {
    const runner = await runners.serve(join(import.meta.dirname, name));
    const expected = Object.entries(expectedOf(name));
    assert.ok(expected.length >= 3, "expected.json has nothing for it");
    for (const [path, answer] of expected) {
      const { status, body, error } = await runner.invoke({ path });
      assert.deepEqual([error, status], [undefined, 200], path);
      const html = body.toString("latin1", 0, 9) === "<!doctype";
      const found = html
        ? { bytes: body.length, sha256: createHash("sha256").update(body).digest("hex") }
        : JSON.parse(body.toString());
      assert.deepEqual(found, answer, path);
    }
    if (!name.startsWith("hello"))
      for (const size of ["huge", "toString"])
        assert.equal((await runner.invoke({ path: `/?size=${size}` })).status, 400);
    const event = await runner.invoke({ kind: "event", body: '{"size":"small"}' });
    assert.equal(event.error, undefined);
  });

test("what is expected is what must be: all nodes are reached, a tree has one edge less than nodes", () => {
  const graph = EXPECTED.graph ?? {};
  for (const [size, nodes] of Object.entries({ small: 1000, medium: 10_000, large: 60_000 })) {
    const of = (algorithm: string) =>
      graph[`/?size=${size}&algorithm=${algorithm}`]?.answer as Record<string, number>;
    assert.equal(of("bfs").reached, nodes);
    assert.equal(of("mst").edges, nodes - 1);
  }
});
