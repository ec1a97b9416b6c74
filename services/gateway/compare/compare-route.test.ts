import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import pg from "pg";
import { type Comparison, compareProgressSchema, comparisonSchema } from "#contracts/comparison";
import type { GatewayRig } from "../testkit/gateway-rig.ts";
import { startWorkerRig, type WorkerRig } from "../testkit/worker-rig.ts";

/** The real worker, queue and runners behind the gateway; only what isolates them is left out. */
let rig: GatewayRig;
let all: WorkerRig;
let database: pg.Client;

const MAIN = `
def handler(event, context):
    if isinstance(event, dict) and event.get("bad"):
        raise ValueError("on purpose")
    return {"got": event}
`;

before(async () => {
  all = await startWorkerRig();
  rig = all.rig;
  database = new pg.Client(rig.postgres.url);
  await database.connect();
  await rig.publish("app", { runtime: "python3", files: { "main.py": MAIN } });
});
after(async () => {
  await database?.end();
  await all?.stop();
});

const ask = (body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  rig.fetch("/v1/compare", {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });

async function refused(body: unknown, status: number, code: string): Promise<string> {
  const response = await ask(body);
  const problem = (await response.json()) as { code: string; detail: string };
  assert.deepEqual([response.status, problem.code], [status, code], JSON.stringify(problem));
  return problem.detail;
}

test("each start is made as asked; the path that this node lacks is told, and every run is an invocation with a record", async () => {
  const response = await ask({ function: "app", n: 2, data: { a: 1 } });
  assert.equal(response.status, 200, await response.clone().text());
  const result: Comparison = comparisonSchema.parse(await response.json());
  const [container, microvm] = result.paths;
  assert.deepEqual(
    container?.starts.map(({ start, n, failures }) => [start, n, failures]),
    [
      ["cold", 2, 0],
      ["prepared", 2, 0],
      ["warm", 2, 0],
    ],
    JSON.stringify(container),
  );
  const [cold, prepared, warm] = container?.starts ?? [];
  for (const name of ["queue_ms", "acquire_ms", "create_ms", "runtime_ms", "init_ms", "handler_ms"])
    assert.equal(typeof cold?.phases[name], "number", name);
  // What a cell took to boot was nobody's wait.
  assert.deepEqual(
    [prepared?.phases.create_ms, prepared?.phases.runtime_ms],
    [undefined, undefined],
  );
  assert.equal(typeof prepared?.phases.assign_ms, "number");
  assert.equal(warm?.phases.init_ms, undefined);
  assert.equal(microvm?.available, false);
  assert.match(microvm?.reason ?? "", /micro-VM/);
  assert.deepEqual(result.nodes, ["node_real"]);
  // The one call for the path that no node has was refused, and never became an invocation.
  const accepted = result.invocations - 1;
  // Records are written in batches, within some 200 ms.
  let rows: { start: string; count: number }[] = [];
  for (let tries = 0; tries < 50; tries++) {
    rows = (
      await database.query(
        "select coalesce(start, '-') as start, count(*)::int as count from invocations group by 1 order by 1",
      )
    ).rows;
    if (rows.reduce((sum, { count }) => sum + count, 0) >= accepted) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.equal(
    rows.reduce((sum, { count }) => sum + count, 0),
    accepted,
  );
  const of = (start: string) => rows.find((row) => row.start === start)?.count ?? 0;
  // Two that count and three before them; the pool's own first start is cold too.
  assert.equal(of("prepared"), 5);
  assert.ok(of("cold") >= 5);
});

test("as an event stream it tells each step, then the result; a client that leaves makes room for the next", async () => {
  const abort = new AbortController();
  const leaving = await rig.fetch("/v1/compare", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify({ function: "app", n: 1000, paths: ["container"] }),
    signal: abort.signal,
  });
  const reader = leaving.body?.getReader();
  await reader?.read();
  assert.match(await refused({ function: "app", n: 1 }, 409, "conflict"), /still running/);
  abort.abort();
  let response: Response;
  do {
    response = await ask(
      {
        function: "app",
        n: 1,
        paths: ["container"],
        request: { method: "POST", path: "/x", body: "{}" },
      },
      { accept: "text/event-stream" },
    );
  } while (response.status === 409);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const events = (await response.text())
    .split("\n\n")
    .filter((text) => text.startsWith("event: "))
    .map((text) => /^event: (\w+)\ndata: (.*)$/s.exec(text) ?? []);
  const steps = events.filter(([, name]) => name === "progress");
  assert.equal(steps.length, 4 * 3);
  for (const [, , data = ""] of steps) compareProgressSchema.parse(JSON.parse(data));
  const [, last, data = ""] = events.at(-1) ?? [];
  assert.equal(last, "result");
  const result = comparisonSchema.parse(JSON.parse(data));
  assert.equal(result.call, "POST /x");
  assert.ok(result.paths[0]?.starts.every(({ n, failures }) => n === 1 && failures === 0));
});

test("a function that fails is told as that, soon", async () => {
  const response = await ask({ function: "app", n: 1000, data: { bad: true } });
  const result = comparisonSchema.parse(await response.json());
  assert.match(result.stopped ?? "", /on purpose/);
  assert.ok(result.invocations < 30);
});

test("what cannot be compared is refused before anything runs", async () => {
  await rig.publish("foreign", { runtime: "python3", files: { "main.py": MAIN } });
  await database.query(
    "insert into tenants (id, name, tier) values ('ten_other', 'other', 'trusted')",
  );
  await database.query("update functions set tenant_id = 'ten_other' where name = 'foreign'");
  await refused({ function: "foreign" }, 404, "function_not_found");
  await refused({ function: "nobody", n: 1 }, 404, "function_not_found");
  await refused({ function: "app@7", n: 1 }, 404, "version_not_found");
  await refused({ function: "../x", n: 1 }, 404, "function_not_found");
  for (const n of [0, -1, 1.5, 1e9, "5"]) await refused({ function: "app", n }, 400, "bad_request");
  await refused({ function: "app", paths: [] }, 400, "bad_request");
  await refused({ function: "app", paths: ["container", "container"] }, 400, "bad_request");
  await refused({ function: "app", paths: ["process"] }, 400, "bad_request");
  await refused({ function: "app", data: {}, request: {} }, 400, "bad_request");
  await refused({ function: "app", request: { path: "/../etc" } }, 400, "bad_request");
  await refused({ function: "app", request: { path: "x" } }, 400, "bad_request");
  await refused({ function: "app", request: { body: "x" } }, 400, "bad_request");
  await refused({ function: "app", data: "x".repeat(70_000) }, 400, "bad_request");
  await refused({ function: "app", start: "cold" }, 400, "bad_request");
  const noKey = await rig.fetch("/v1/compare", {
    method: "POST",
    headers: { authorization: "", "content-type": "application/json" },
    body: JSON.stringify({ function: "app" }),
  });
  assert.equal(noKey.status, 401);
});
