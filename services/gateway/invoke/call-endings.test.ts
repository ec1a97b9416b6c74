import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { encodeFrame, FRAME, FrameDecoder, jsonPayload } from "#protocol/frames";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { headOf } from "../testkit/worker-side.ts";

let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig();
  await rig.publish("fn");
});
after(() => rig?.stop());

const codeOf = async (response: Response): Promise<unknown> =>
  ((await response.json()) as { code: unknown }).code;

const event = (
  body: string | Buffer<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<Response> =>
  rig.fetch("/v1/functions/fn/invocations", {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });

test("an event goes to the function as it is, small or large, and its answer comes back", async () => {
  rig.worker.behaviours.set("/", async (served) => {
    const body = await served.body;
    served.reply.head(headOf(200, [["content-type", "application/json"]]));
    await served.write(body);
    served.reply.end({});
  });
  for (const text of ["{}", '{"a":[1,"ü"]}', JSON.stringify("x".repeat(200_000))]) {
    const response = await event(text);
    assert.equal(response.status, 200);
    assert.equal(await response.text(), text);
    const job = rig.worker.jobs.at(-1);
    assert.equal(job?.kind, "event");
    assert.equal(job?.head.path, "/");
  }
  const bare = await rig.fetch("/v1/functions/fn@1/invocations", { method: "POST" });
  assert.equal(await bare.text(), "{}");
  rig.worker.behaviours.delete("/");
});

test("events that are none, and wishes that are not served, are refused", async () => {
  const cases: [string | Buffer<ArrayBuffer>, Record<string, string>, number, string][] = [
    ["{", {}, 400, "bad_request"],
    [Buffer.from([0x22, 0xff, 0x22]), {}, 400, "bad_request"],
    ["a=1", { "content-type": "application/x-www-form-urlencoded" }, 415, "unsupported_media_type"],
    [JSON.stringify("x".repeat(6 << 20)), {}, 413, "body_too_large"],
    ["{}", { prefer: "respond-async" }, 501, "not_implemented"],
    ["{}", { "idempotency-key": "x" }, 501, "not_implemented"],
  ];
  for (const [body, headers, status, code] of cases) {
    const response = await event(body, headers);
    assert.equal(response.status, status);
    assert.equal(await codeOf(response), code);
  }
  const read = await rig.fetch("/v1/functions/fn/invocations");
  assert.equal(read.status, 405);
  assert.equal(await codeOf(read), "method_not_allowed");
});

test("a caller that hangs up cancels what runs", async () => {
  const begun = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/patient", async (served) => {
    served.reply.announce();
    begun.resolve();
    await served.gone;
    gone.resolve();
  });
  const abort = new AbortController();
  const call = rig.fetch("/f/fn/patient", { signal: abort.signal });
  await begun.promise;
  abort.abort();
  await assert.rejects(call, { name: "AbortError" });
  await gone.promise;
});

test("a worker whose link breaks: 502 at once before the head, a broken connection after it", async () => {
  const begun = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/dies", async (served) => {
    served.reply.announce();
    begun.resolve();
    await served.gone;
  });
  const call = rig.fetch("/f/fn/dies");
  await begun.promise;
  rig.worker.behaviours.set("/dies-later", async (served) => {
    served.reply.head(headOf(200));
    served.reply.sendData(Buffer.from("half"));
    await served.gone;
  });
  const half = await rig.fetch("/f/fn/dies-later");
  assert.equal(half.status, 200);
  rig.worker.dropLinks();
  const response = await call;
  assert.equal(response.status, 502);
  assert.equal(await codeOf(response), "worker_lost");
  await assert.rejects(half.text());
  assert.equal((await rig.fetch("/f/fn/next")).status, 200);
});

test("a body that does not come is not waited for without end", async () => {
  const other = await rig.another({ queueWaitMs: 150 });
  const client = connect(Number(new URL(other.url).port), "127.0.0.1");
  client.write(
    `POST /f/fn/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${rig.key}\r\ncontent-length: 5\r\n\r\nabc`,
  );
  const [answer] = (await once(client, "data")) as [Buffer];
  assert.match(answer.toString(), /^HTTP\/1\.1 408 /);
  client.destroy();
  await other.gateway.drain();
});

test("a drain lets calls end and takes no more", async () => {
  const other = await rig.another();
  const begun = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/slow", async ({ reply }) => {
    reply.announce();
    begun.resolve();
    await go.promise;
    reply.head(headOf(200));
    reply.sendData(Buffer.from("whole"));
    reply.end({});
  });
  const headers = { authorization: `Bearer ${rig.key}` };
  const call = fetch(`${other.url}/f/fn/slow`, { headers });
  await begun.promise;
  const drained = other.gateway.drain();
  await assert.rejects(fetch(`${other.url}/healthz`, { headers }));
  go.resolve();
  const response = await call;
  assert.equal(response.headers.get("connection"), "close");
  assert.equal(await response.text(), "whole");
  await drained;
});

test("a drain's bound: what has not ended by then is told so", async () => {
  const other = await rig.another({ drainMs: 50 });
  const begun = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/endless", async ({ reply, gone }) => {
    reply.announce();
    begun.resolve();
    await gone;
  });
  const call = fetch(`${other.url}/f/fn/endless`, {
    headers: { authorization: `Bearer ${rig.key}` },
  });
  await begun.promise;
  await other.gateway.drain();
  const response = await call;
  assert.equal(response.status, 503);
  assert.equal(await codeOf(response), "draining");
});

test("a drain ends what has no end of its own: followers of logs", async () => {
  const other = await rig.another();
  const headers = { authorization: `Bearer ${rig.key}` };
  const response = await fetch(`${other.url}/v1/functions/fn/logs?follow=true`, { headers });
  assert.equal(response.status, 200);
  await Promise.all([other.gateway.drain(), response.text()]);
});

test("a peer without the secret, or that breaks the protocol, gets nothing and harms nobody", async () => {
  const hello = (token: string): Buffer[] =>
    encodeFrame(FRAME.REQUEST, 1, jsonPayload({ op: "hello", worker: "w", token, version: 1 }));
  const streams = encodeFrame(FRAME.INVOKE, 2, jsonPayload({ invocation: "inv_x" }));
  for (const bytes of [
    hello("another"),
    streams,
    [Buffer.alloc(100, 0xff)],
    [...hello(rig.secret), ...hello(rig.secret)],
  ]) {
    const socket = connect(rig.replyListen.slice("unix:".length));
    for (const part of bytes) socket.write(part);
    socket.resume();
    await once(socket, "close");
  }
  const socket = connect(rig.replyListen.slice("unix:".length));
  for (const part of [...hello(rig.secret), ...streams]) socket.write(part);
  const types: number[] = [];
  const decoder = new FrameDecoder();
  for await (const chunk of socket) {
    decoder.push(chunk as Buffer, (type) => {
      types.push(type);
      return true;
    });
    if (types.length === 2) break;
  }
  // An invocation nobody waits for is cancelled.
  assert.deepEqual(types, [FRAME.REPLY, FRAME.CANCEL]);
  assert.equal((await rig.fetch("/f/fn/next")).status, 200);
});
