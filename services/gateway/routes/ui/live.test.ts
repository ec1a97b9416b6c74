import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { LiveBatch } from "#contracts/live";
import { hearWatchers, publishLive } from "#queue/live";
import { Publisher, Subscriber } from "#queue/pubsub";
import { AdminClient } from "../../testkit/admin-client.ts";
import { type GatewayRig, startGatewayRig } from "../../testkit/gateway-rig.ts";
import { UiClient } from "../../testkit/ui-client.ts";

let rig: GatewayRig;
let admin: AdminClient;
let ids: { acme: string; other: string };
let node: { subscriber: Subscriber; publisher: Publisher };

/** What the node tells whenever somebody begins to watch: one call of each tenant. */
const batch = (): LiveBatch => ({
  ...{ nodeId: "node_1", atMs: Date.now(), spanMs: 250, uncounted: 0 },
  pool: { busy: 1, warm: 2, pooled: 3, prepared: 4, starting: 5, waiting: 6 },
  sums: [ids.acme, ids.other].map((tenantId) => ({
    ...{ tenantId, path: "microvm", start: "restored", calls: 2, failures: 0 },
    exits: { syscall: 4, fault: 0, interrupted: 0, page_unavailable: 0 },
  })),
  calls: [ids.acme, ids.other].map((tenantId) => ({
    ...{ id: `inv_of_${tenantId}`, tenantId, function: "fn", version: 1, atMs: Date.now() },
    ...{ status: "ok", path: "microvm", start: "restored", bootMs: 4, durationMs: 5 },
  })),
});

before(async () => {
  rig = await startGatewayRig();
  admin = new AdminClient(rig.url, rig.adminKey);
  ids = { acme: await admin.tenant("acme"), other: await admin.tenant("other") };
  node = {
    subscriber: new Subscriber(rig.redis.url),
    publisher: Publisher.connect(rig.redis.url),
  };
  await hearWatchers(node.subscriber, () => void publishLive(node.publisher, batch()));
});
after(async () => {
  await Promise.all([node?.subscriber.close(), node?.publisher.close()]);
  await rig?.stop();
});

/** Follows the stream with a key; `events` yields what it tells. */
async function follow(key: string, query = "") {
  const ui = new UiClient(rig.url);
  await ui.signIn(key);
  const stop = new AbortController();
  const response = await fetch(`${rig.url}/ui/live/events${query}`, {
    headers: { cookie: ui.cookie },
    signal: stop.signal,
  });
  return { response, stop, events: eventsOf(response) };
}

async function* eventsOf(response: Response): AsyncGenerator<Record<string, unknown>> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes as Uint8Array, { stream: true });
    const parts = text.split("\n\n");
    text = parts.pop() ?? "";
    for (const part of parts)
      if (part.startsWith("data: ")) yield JSON.parse(part.slice("data: ".length));
  }
}

test("the operator sees all calls by tenant, and the pool of each node", async () => {
  const { events, stop, response } = await follow(rig.adminKey);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const { value } = await events.next();
  assert.deepEqual([value?.node, value?.pool], ["node_1", batch().pool]);
  assert.deepEqual(value?.sums, [
    {
      ...{ path: "microvm", start: "restored", calls: 4, failures: 0 },
      exits: { syscall: 8, fault: 0, interrupted: 0, page_unavailable: 0 },
    },
  ]);
  const calls = value?.calls as Record<string, unknown>[];
  assert.deepEqual(
    calls.map(({ tenant }) => tenant),
    ["acme", "other"],
  );
  stop.abort();
});

test("a key of a tenant, and the operator who asks for one, see that tenant's calls alone", async () => {
  const { key } = await admin.clientOf("acme", ["read"]);
  for (const [who, query] of [
    [key, ""],
    [key, "?tenant=acme"],
    [rig.adminKey, "?tenant=acme"],
  ]) {
    const { events, stop } = await follow(String(who), String(query));
    const { value } = await events.next();
    assert.deepEqual(
      [value?.node, value?.pool, (value?.sums as { calls: number }[] | undefined)?.[0]?.calls],
      [undefined, undefined, 2],
    );
    const text = JSON.stringify(value);
    assert.ok(!text.includes(ids.other) && !text.includes("other"), text);
    assert.ok(text.includes(`inv_of_${ids.acme}`));
    stop.abort();
  }
  const { response } = await follow(key, "?tenant=other");
  assert.equal(response.status, 404);
  const { key: invoker } = await admin.clientOf("acme", ["admin"]);
  assert.equal((await follow(invoker)).response.status, 403);
  assert.equal((await fetch(`${rig.url}/ui/live/events`)).status, 401);
});

test("a stream ends when its key is revoked", async () => {
  const { id, key } = await admin.clientOf("acme", ["read"]);
  const { events } = await follow(key);
  await events.next();
  await admin.expect(204, "DELETE", `/admin/v1/tenants/acme/keys/${id}`);
  while (!(await events.next()).done);
});

test("one key opens at most ten streams, and closing one makes room", {
  timeout: 60_000,
}, async () => {
  const { key } = await admin.clientOf("acme", ["read"]);
  const open = [];
  for (let n = 0; n < 10; n++) open.push(await follow(key));
  for (const { response } of open) assert.equal(response.status, 200);
  assert.equal((await follow(key)).response.status, 503);
  assert.equal((await follow(rig.adminKey)).response.status, 200);
  for (const { stop } of open) stop.abort();
  // The gateway hears of it in its own time.
  let again = await follow(key);
  while (again.response.status === 503) again = await follow(key);
  assert.equal(again.response.status, 200);
});
