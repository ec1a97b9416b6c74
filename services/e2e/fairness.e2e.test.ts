import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, problem, type Target } from "./client.ts";

/** A tenant of its own, with a key. */
async function tenantOf(instance: Instance, name: string): Promise<Target> {
  const post = async (path: string, body: object): Promise<Record<string, unknown>> => {
    const response = await fetch(`${instance.url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${instance.adminKey}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    assert.equal(response.status, 201, await response.clone().text());
    return (await response.json()) as Record<string, unknown>;
  };
  const { id } = await post("/admin/v1/tenants", { name, tier: "trusted" });
  const { key } = await post(`/admin/v1/tenants/${id}/keys`, {
    name: "test",
    scopes: ["invoke", "deploy", "read"],
  });
  return { url: instance.url, key: String(key) };
}

/** What one tenant's flood may do to another's calls, told by the order in which calls are answered and never by time. */
describe("fairness between tenants", { timeout: 240_000 }, () => {
  let instance: Instance;
  let loud: Target;
  let quiet: Target;

  before(async () => {
    instance = await startInstance({
      env: {
        CLOISTER_WORKER_CONCURRENCY: "4",
        CLOISTER_BACKLOG_PER_TENANT: "150",
        CLOISTER_NODE_MEMORY_MB: "512",
        CLOISTER_PREPARED: "",
      },
    });
    loud = await tenantOf(instance, "loud");
    quiet = await tenantOf(instance, "quiet");
    for (const target of [loud, quiet])
      await deploy(target, {
        name: "works",
        isolation: "container",
        memoryMb: 256,
        files: {
          "index.mjs": `export default { async fetch() {
            await new Promise((done) => setTimeout(done, 50));
            return new Response("done");
          } };`,
        },
      });
  });
  after(() => instance?.stop());

  test("a call is answered after a few of a flood's, though a hundred came before it and all memory is taken", async () => {
    let answered = 0;
    const flood = Array.from({ length: 120 }, async () => {
      const response = await call(loud, "works");
      answered++;
      return response;
    });
    await Promise.race(flood);
    const ahead: number[] = [];
    for (let n = 0; n < 5; n++) {
      const before = answered;
      const response = await call(quiet, "works");
      assert.equal(response.status, 200, await response.clone().text());
      ahead.push(answered - before);
    }
    assert.ok(answered < 120, "the flood was still there");
    for (const response of await Promise.all(flood)) assert.equal(response.status, 200);
    // The first may have to wait for one of the flood's two sandboxes to give way, and for a start.
    const later = ahead.slice(1);
    assert.ok(
      later.every((count) => count <= 12),
      `the flood's answers before each of the quiet tenant's: ${ahead}`,
    );
  });

  test("beyond what may wait a tenant is refused at once, and another is not", async () => {
    const flood = await Promise.all(
      Array.from({ length: 200 }, (_, n) =>
        n === 199 ? call(quiet, "works") : call(loud, "works"),
      ),
    );
    const last = flood.pop() as Response;
    assert.equal(last.status, 200, await last.clone().text());
    const refused = flood.filter(({ status }) => status !== 200);
    assert.ok(refused.length > 0 && refused.length < 60, `${refused.length} were refused`);
    for (const response of refused) {
      assert.ok(response.headers.get("retry-after"));
      const { status, code } = await problem(response);
      assert.deepEqual([status, code], [429, "backlog_full"]);
    }
  });
});

/** Calls of a flood that wait in the gateway while another tenant calls too. */
async function heldCalls({ url }: Instance): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^cloister_gateway_held_calls (\d+)$/m.exec(text)?.[1]);
}

interface Flood {
  path: string;
  /** At once. */
  callers: number;
  /** In all. */
  calls: number;
  /** It is over once so many were held at each of ten moments on end. */
  enough?: number;
}

/** A flood that fills the processors, told by where its calls are and never by time. */
describe("fairness on busy processors", { timeout: 240_000 }, () => {
  let instance: Instance;
  let loud: Target;
  let quiet: Target;

  before(async () => {
    instance = await startInstance({ env: { CLOISTER_PREPARED: "" } });
    loud = await tenantOf(instance, "loud");
    quiet = await tenantOf(instance, "quiet");
    const files = {
      "index.mjs": `export default { async fetch(request) {
        const [kind, ms] = new URL(request.url).pathname.slice(1).split("/");
        if (kind === "sleeps") await new Promise((done) => setTimeout(done, Number(ms)));
        else for (let turns = 0; turns < Number(ms) * 20_000; turns++) Math.sqrt(turns);
        return new Response("done");
      } };`,
    };
    for (const isolation of ["container", "microvm"])
      await deploy(loud, { name: isolation, isolation, memoryMb: 128, files });
    await deploy(quiet, { name: "few", isolation: "container", memoryMb: 128, files });
  });
  after(() => instance?.stop());

  /** How many of a flood's calls were held at moments of its second half, or before it was over by `enough`, beside another tenant's calls. */
  async function heldOf(name: string, { path, callers, calls, enough }: Flood): Promise<number[]> {
    let left = calls;
    const held: number[] = [];
    const flood = Array.from({ length: callers }, async () => {
      while (left-- > 0) {
        const response = await call(loud, name, path);
        assert.equal(response.status, 200, await response.text());
      }
    });
    while (left > 0) {
      const response = await call(quiet, "few", "/sleeps/1");
      assert.equal(response.status, 200, await response.text());
      if (enough === undefined && left >= calls / 2) continue;
      const now = await heldCalls(instance);
      if (left > 0) held.push(now);
      if (enough !== undefined && held.slice(-10).filter((one) => one >= enough).length === 10)
        left = 0;
    }
    await Promise.all(flood);
    assert.ok(held.length > 0);
    return held;
  }

  for (const name of ["container", "microvm"]) {
    test(`calls that wait for a processor are held back: ${name}`, async () => {
      const callers = 24;
      const enough = callers / 2;
      // On a machine with other work, starting the sandboxes alone takes hundreds of calls, and of a call that had to wait for one nothing is learned.
      const held = await heldOf(name, { path: "/computes/20", callers, calls: 3000, enough });
      const last = held.slice(-10);
      assert.ok(
        last.length === 10 && Math.min(...last) >= enough,
        `of ${callers} were held: ${held}`,
      );
    });

    test(`calls that sleep are not: ${name}`, async () => {
      // So long, and so few at once, that what a call waits for before its function, on a machine that has other work too, is little of its time: their
      // sandboxes start meanwhile, and a fifth of two seconds would have half of eight held back, as it is meant to.
      const callers = 8;
      const held = await heldOf(name, { path: "/sleeps/2000", callers, calls: 64 });
      assert.ok(Math.min(...held) < callers / 2, `of ${callers} were held: ${held}`);
    });
  }
});
