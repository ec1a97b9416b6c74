import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";

let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig();
  await rig.publish("fn");
  await rig.publish("open", { public: true });
});
after(() => rig?.stop());

const withKey = (path: string, init: RequestInit = {}): Promise<Response> => rig.fetch(path, init);

/** Every address that may start an invocation, and the ways to use it. Whoever adds one adds it here. */
const DOORS: Record<string, (() => Promise<Response>)[]> = {
  "/f/{function}/{path}": [
    () => withKey("/f/fn/"),
    () => withKey("/f/fn@1/a/b?c", { method: "DELETE" }),
    () => withKey("/f/fn/", { method: "POST", body: Buffer.alloc(1024 * 1024) }),
    () => fetch(`${rig.url}/f/open/`),
    () => fetch(`${rig.url}/f/open/`, { method: "HEAD" }),
  ],
  "/v1/functions/{name}/invocations": [
    () => withKey("/v1/functions/fn/invocations", { method: "POST" }),
    () =>
      withKey("/v1/functions/open@1/invocations", {
        method: "POST",
        headers: { "cloister-isolation": "container", "content-type": "application/json" },
        body: "[1]",
      }),
  ],
};

/** Addresses that start invocations of their own, whose answer is none of a function. */
const WITHIN: typeof DOORS = {
  "/v1/compare": [
    () =>
      withKey("/v1/compare", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ function: "fn", n: 1 }),
      }),
  ],
};

interface Document {
  paths: Record<string, Record<string, { responses: Record<string, { headers?: object }> }>>;
}

test("the document knows no other address that starts an invocation", async () => {
  const { paths } = (await (await withKey("/openapi.json")).json()) as Document;
  const starting = Object.entries(paths)
    .filter(([, methods]) =>
      Object.values(methods).some(({ responses }) =>
        Object.values(responses).some(
          ({ headers }) => headers && "Cloister-Invocation-Id" in headers,
        ),
      ),
    )
    .map(([path]) => path);
  assert.deepEqual(starting.sort(), Object.keys(DOORS).sort());
});

test("each of them asks the quota, and what it refuses reaches no worker", async () => {
  const quota = (body: object): Promise<Response> =>
    rig.fetch("/admin/v1/tenants/default/quota", {
      method: "PUT",
      headers: { authorization: `Bearer ${rig.adminKey}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  assert.equal((await quota({ concurrency: 0 })).status, 200);
  const before = rig.worker.jobs.length;
  for (const [path, ways] of Object.entries({ ...DOORS, ...WITHIN }))
    for (const [index, way] of ways.entries()) {
      const response = await way();
      assert.equal(response.status, 429, `${path} ${index}`);
      if (path in DOORS) assert.ok(response.headers.get("cloister-invocation-id"));
      assert.equal(response.headers.get("ratelimit"), '"concurrency";r=0');
    }
  assert.equal((await quota({})).status, 200);
  for (const [path, ways] of Object.entries(DOORS))
    for (const [index, way] of ways.entries())
      assert.equal((await way()).status, 200, `${path} ${index}`);
  const all = Object.values(DOORS).flat().length;
  assert.equal(rig.worker.jobs.length - before, all);
});

test("no other code of the gateway sends an invocation on its way without asking", () => {
  const folder = join(import.meta.dirname, "..");
  const sending = globSync("**/*.ts", { cwd: folder })
    // What carries jobs to nodes is not what starts them.
    .filter((path) => !/[.]test[.]ts$|^(?:testkit|dispatch)\/|^invoke\/delivery[.]ts$/.test(path))
    .map((path) => ({ path, text: readFileSync(join(folder, path), "utf8") }))
    .filter(({ text }) => /\b(?:producer\.add|dispatcher\.submit|new Delivery)\(/.test(text));
  assert.deepEqual(sending.map(({ path }) => path).sort(), [
    "compare/measured-call.ts",
    "invoke/call.ts",
  ]);
  for (const { path, text } of sending) assert.match(text, /\badmissions\.(?:enter|admit)\(/, path);
});
