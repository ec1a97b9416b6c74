import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createKey } from "#db/keys";
import { ensureTenant } from "#db/tenants";
import type { GatewayRig } from "./testkit/gateway-rig.ts";
import { startWorkerRig, type WorkerRig } from "./testkit/worker-rig.ts";

/** The real worker and real runners behind the gateway; only what isolates them is left out, which is tested where it is made. */
let rig: GatewayRig;
let all: WorkerRig;

const MAIN = `
import json

async def app(scope, receive, send):
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["path"].encode())]})
    await send({"type": "http.response.body", "body": body})
`;

before(async () => {
  all = await startWorkerRig((made) =>
    made.db.pool.query(
      "create table invocations_20200101 partition of invocations for values from ('2020-01-01 00:00:00+00') to ('2020-01-02 00:00:00+00')",
    ),
  );
  rig = all.rig;
  await rig.publish("app", { runtime: "python3", files: { "main.py": MAIN } });
});
after(async () => {
  await all?.stop();
});

test("a request goes through queue, worker and runner, and its answer comes back", async () => {
  for (const start of [/^(cold|prepared)$/, /^warm$/]) {
    const response = await rig.fetch("/f/app/a/b?c", { method: "POST", body: "sent" });
    assert.equal(response.status, 201, await response.clone().text());
    assert.equal(response.headers.get("x-path"), "/a/b");
    assert.match(response.headers.get("cloister-start") ?? "", start);
    assert.match(
      response.headers.get("server-timing") ?? "",
      /queue;dur=.*acquire;dur=.*handler;dur=.*total;dur=/,
    );
    assert.equal(await response.text(), "sent");
  }
});

test("a large body streams through all of them", async () => {
  const body = Buffer.alloc(5 << 20, "0123456789");
  const response = await rig.fetch("/f/app/", { method: "POST", body });
  assert.equal(response.status, 201);
  assert.ok(body.equals(Buffer.from(await response.arrayBuffer())));
});

test("quick and slow starts at once: each caller gets its own answer", async () => {
  await rig.publish("other", { runtime: "python3", files: { "main.py": MAIN } });
  // Warm answers overtake cold starts on the same link.
  const names = Array.from({ length: 24 }, (_, n) => (n % 6 === 0 ? "other" : "app"));
  await Promise.all(
    names.map(async (name, n) => {
      const response = await rig.fetch(`/f/${name}/${n}`, { method: "POST", body: `body ${n}` });
      assert.equal(response.status, 201, await response.clone().text());
      assert.equal(response.headers.get("x-path"), `/${n}`);
      assert.equal(await response.text(), `body ${n}`);
    }),
  );
});

test("a function that fails to load says so; less isolation than the policy allows is refused", async () => {
  await rig.publish("broken", { runtime: "python3", files: { "main.py": "def" } });
  const broken = await rig.fetch("/f/broken/");
  assert.equal(broken.status, 500);
  assert.equal(((await broken.json()) as { code: string }).code, "function_init_error");
  await rig.publish("strict", { runtime: "python3", isolation: "microvm" });
  for (const [headers, status, code] of [
    [{ "cloister-isolation": "container" }, 403, "isolation_not_allowed"],
    [{}, 503, "isolation_unavailable"],
  ] as const) {
    const response = await rig.fetch("/f/strict/", { headers });
    assert.equal(response.status, status);
    assert.equal(((await response.json()) as { code: string }).code, code);
  }
});

test("the worker has what is past its time removed from the database", async () => {
  // It does that beside its work and tells nobody: looked at until it is done, at most 10 s.
  const end = performance.now() + 10_000;
  for (;;) {
    const { rows } = await rig.db.pool.query("select to_regclass('invocations_20200101') as old");
    if (rows[0].old === null) return;
    assert.ok(performance.now() < end, "still there after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

interface Told {
  path: string | null;
  start?: string;
  code?: string;
  remedy?: string;
  reasons: string[];
  rules: string[];
  findings: Record<"needs" | "hints", { need: string; file: string; line: number }[]>;
  nodes: {
    id: string;
    answered: boolean;
    paths: Record<string, { start: string; ready: boolean; next: string; observed: number }>;
  }[];
}

const placementOf = async (name: string, headers: Record<string, string> = {}): Promise<Told> => {
  const response = await rig.fetch(`/v1/functions/${name}/placement`, { headers });
  assert.equal(response.status, 200, await response.clone().text());
  return (await response.json()) as Told;
};

const SPAWNS = `
import subprocess

def handler(event, context):
    return subprocess.run(["x"]).returncode if event.get("run") else "idle"
`;

test("placement asks the node: how a call would start, what that costs, and what the code needs, with file and line", async () => {
  await rig.publish("told", {
    runtime: "python3",
    files: { "main.py": SPAWNS, "site-packages/dep.py": "import os\nos.fork()\n" },
  });
  const before = await placementOf("told");
  assert.equal(before.path, "container");
  assert.match(before.start ?? "", /^(cold|prepared)$/);
  assert.deepEqual(before.rules, ["auto-trusted", "need-subprocess", "node-offers"]);
  const where = ({ need, file, line }: Told["findings"]["needs"][number]) =>
    `${need} ${file}:${line}`;
  assert.deepEqual(before.findings.needs.map(where), ["subprocess main.py:5"]);
  assert.deepEqual(before.findings.hints.map(where), ["subprocess site-packages/dep.py:2"]);
  const [node] = before.nodes;
  assert.deepEqual([node?.id, node?.answered], ["node_real", true]);
  assert.equal(node?.paths.container?.observed, 0);

  const response = await rig.fetch("/v1/functions/told/invocations", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  assert.equal(response.status, 200, await response.clone().text());
  const after = await placementOf("told");
  assert.deepEqual([after.path, after.start], ["container", "warm"]);
  const container = after.nodes[0]?.paths.container;
  assert.equal(container?.ready, true);
  assert.ok((container?.observed ?? 0) > 0.9, "the call's own start is what was seen");
});

test("what a standard tenant's code needs and no path has is refused with what to do about it", async () => {
  const tenant = await ensureTenant(rig.db, "standard", "standard");
  const { clear } = await createKey(rig.db, tenant.id, "test", ["invoke", "deploy", "read"]);
  const headers = { authorization: `Bearer ${clear}`, "content-type": "application/json" };
  const body = { name: "spawns", runtime: "python3", files: { "main.py": SPAWNS } };
  const published = await rig.fetch("/v1/functions", {
    method: "POST",
    headers,
    body: JSON.stringify(body),
  });
  assert.equal(published.status, 201, await published.clone().text());
  const told = await placementOf("spawns", headers);
  assert.deepEqual([told.path, told.code], [null, "isolation_unavailable"]);
  assert.match(told.remedy ?? "", /--isolation microvm/);
  const call = { method: "POST", headers, body: "{}" };
  const refused = await rig.fetch("/v1/functions/spawns/invocations", call);
  const problem = (await refused.json()) as Record<string, string>;
  assert.deepEqual([refused.status, problem.code], [503, "isolation_unavailable"]);
  assert.match(problem.detail ?? "", /starts other programs/);
  assert.equal(problem.remedy, told.remedy);
});
