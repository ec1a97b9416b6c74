import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { type GatewayRig, startGatewayRig } from "../testkit/gateway-rig.ts";
import { answers, headOf } from "../testkit/worker-side.ts";

let rig: GatewayRig;
before(async () => {
  rig = await startGatewayRig();
  await rig.publish("fn");
});
after(() => rig?.stop());

const raw = (path: string, method = "GET", headers: Record<string, string> = {}) =>
  request(`${rig.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${rig.key}`, ...headers },
  });

/** Sends bytes as they are, gives everything that comes until the connection ends. */
async function exchange(text: string): Promise<string> {
  const { hostname, port } = new URL(rig.url);
  const socket = connect(Number(port), hostname);
  socket.setEncoding("latin1");
  let answer = "";
  socket.on("data", (piece) => {
    answer += piece;
  });
  socket.write(text);
  await once(socket, "close");
  return answer;
}

const codeOf = async (response: Response): Promise<string> => {
  assert.equal(response.headers.get("content-type"), "application/problem+json");
  const problem = (await response.json()) as Record<string, unknown>;
  assert.equal(problem.status, response.status);
  assert.ok(problem.remedy);
  return problem.code as string;
};

test("a function's own answer comes back with Cloister's headers", async () => {
  rig.worker.behaviours.set(
    "/own",
    answers(
      418,
      [
        ["content-type", "text/x-own"],
        ["set-cookie", "a=1"],
        ["set-cookie", "b=2"],
        ["cloister-version", "999"],
        ["connection", "x-secret"],
        ["x-secret", "of the connection"],
        ["transfer-encoding", "gzip"],
      ],
      "teapot",
    ),
  );
  const response = await rig.fetch("/f/fn/own?x=1");
  assert.equal(response.status, 418);
  assert.equal(await response.text(), "teapot");
  const { headers } = response;
  assert.equal(headers.get("content-type"), "text/x-own");
  assert.equal(headers.get("content-length"), "6");
  assert.deepEqual(headers.getSetCookie(), ["a=1", "b=2"]);
  assert.equal(headers.get("x-secret"), null);
  assert.match(headers.get("cloister-invocation-id") ?? "", /^inv_[0-9a-v]{26}$/);
  assert.equal(headers.get("cloister-isolation"), "container");
  assert.equal(headers.get("cloister-start"), "warm");
  assert.equal(headers.get("cloister-version"), "1");
  assert.match(
    headers.get("server-timing") ?? "",
    /^queue;dur=0\.1, acquire;dur=0\.2, handler;dur=0\.3, total;dur=[\d.]+$/,
  );
});

test("the function gets the request as it was, without the key and what ends at the gateway", async () => {
  const call = raw("/f/fn/seen/%C3%A9?q=%20", "PATCH", {
    "x-own": "kept",
    "cloister-isolation": "container",
    connection: "close, x-hop",
    "x-hop": "1",
    te: "trailers",
  });
  call.end("body");
  const [response] = (await once(call, "response")) as [IncomingMessage];
  response.resume();
  await once(response, "end");
  const job = rig.worker.jobs.at(-1);
  assert.equal(job?.head.method, "PATCH");
  assert.equal(job?.head.path, "/seen/%C3%A9?q=%20");
  assert.equal(job?.head.url, `${rig.url}/seen/%C3%A9?q=%20`);
  assert.equal(job?.wantedPath, "container");
  assert.deepEqual(job?.body, { text: "body" });
  const names = job?.head.headers.map(([name]) => name) ?? [];
  assert.ok(names.includes("x-own"));
  for (const name of ["authorization", "cloister-isolation", "connection", "x-hop", "te"])
    assert.ok(!names.includes(name), name);
});

test("bodies that are no text, and large ones, arrive unchanged", async () => {
  for (const bytes of [3, 65_536, 65_537, 3_000_000]) {
    rig.worker.behaviours.set("/echo", async (served) => {
      const body = await served.body;
      served.reply.head(headOf(200));
      await served.write(body);
      served.reply.end({});
    });
    const body = Buffer.alloc(bytes, Buffer.from([0xff, 0x00, 0x80]));
    const response = await rig.fetch("/f/fn/echo", { method: "POST", body });
    assert.equal(response.status, 200);
    assert.ok(body.equals(Buffer.from(await response.arrayBuffer())), `${bytes} bytes`);
    assert.equal(rig.worker.jobs.at(-1)?.bodyFollows, bytes > 65_536);
  }
});

test("request and answer stream at the same time", async () => {
  rig.worker.behaviours.set("/mirror", async (served) => {
    served.reply.head(headOf(200));
    for (let piece = await served.read(); piece; piece = await served.read())
      await served.write(piece);
    served.reply.end({});
  });
  const call = raw("/f/fn/mirror", "POST");
  call.write("first");
  const [response] = (await once(call, "response")) as [IncomingMessage];
  response.setEncoding("utf8");
  assert.equal((await once(response, "data"))[0], "first");
  call.write("second");
  assert.equal((await once(response, "data"))[0], "second");
  const ended = once(response, "end");
  call.end();
  await ended;
});

test("a client that does not read holds its function back", async () => {
  const stalled = Promise.withResolvers<number>();
  const finished = Promise.withResolvers<boolean>();
  rig.worker.behaviours.set("/flood", async (served) => {
    served.reply.head(headOf(200));
    let sent = 0;
    const piece = Buffer.alloc(65_536);
    // 64 MiB: more than any buffer between holds.
    while (sent < 64 << 20) {
      if (served.reply.credit === 0) stalled.resolve(sent);
      if (!(await served.write(piece))) break;
      sent += piece.length;
    }
    served.reply.end({});
    finished.resolve(sent === 64 << 20);
  });
  const call = raw("/f/fn/flood");
  call.end();
  const [response] = (await once(call, "response")) as [IncomingMessage];
  assert.ok((await stalled.promise) < 64 << 20);
  let bytes = 0;
  for await (const piece of response) bytes += (piece as Buffer).length;
  assert.equal(bytes, 64 << 20);
  assert.ok(await finished.promise);
});

test("HEAD, 204 and 304 have no body, and the connection stays usable", async () => {
  rig.worker.behaviours.set("/head", answers(200, [["content-length", "6"]], "teapot"));
  // Of no letters or digits, which the ids in headers are made of.
  rig.worker.behaviours.set("/204", answers(204, [["content-length", "3"]], "~~~"));
  rig.worker.behaviours.set("/304", answers(304, [["etag", '"x"']]));
  const head = await rig.fetch("/f/fn/head", { method: "HEAD" });
  assert.equal(head.headers.get("content-length"), "6");
  assert.equal(await head.text(), "");
  const none = await rig.fetch("/f/fn/204");
  assert.equal(none.status, 204);
  assert.equal(none.headers.get("content-length"), null);
  const same = await rig.fetch("/f/fn/304");
  assert.equal(same.status, 304);
  assert.equal(same.headers.get("etag"), '"x"');
  // Were a body sent after all, the next answer of the same connection would begin with it.
  const key = `authorization: Bearer ${rig.key}\r\nhost: x\r\n`;
  const all = await exchange(
    `HEAD /f/fn/head HTTP/1.1\r\n${key}\r\nGET /f/fn/204 HTTP/1.1\r\n${key}\r\nGET /f/fn/head HTTP/1.1\r\n${key}connection: close\r\n\r\n`,
  );
  assert.equal(all.match(/HTTP\/1\.1 /g)?.length, 3);
  assert.equal(all.match(/teapot/g)?.length, 1);
  assert.ok(!all.includes("~~~"));
});

test("a body that is not as long as its Content-Length never reaches the next answer", async () => {
  rig.worker.behaviours.set("/long", answers(200, [["content-length", "3"]], "abcHTTP/1.1 200"));
  assert.equal(await codeOf(await rig.fetch("/f/fn/long")), "function_bad_response");
  rig.worker.behaviours.set("/short", answers(200, [["content-length", "30"]], "abc"));
  assert.equal(await codeOf(await rig.fetch("/f/fn/short")), "function_bad_response");
  const seen = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/late", async ({ reply }) => {
    reply.head(headOf(200, [["content-length", "10"]]));
    reply.sendData(Buffer.from("abc"));
    await seen.promise;
    reply.end({});
  });
  const late = await rig.fetch("/f/fn/late");
  seen.resolve();
  await assert.rejects(late.text());
});

test("an early answer leaves the rest of the body unread and the connection sound", async () => {
  rig.worker.behaviours.set("/early", answers(200, [], "early"));
  const body = Buffer.alloc(4 << 20);
  for (let n = 0; n < 3; n++) {
    const response = await rig.fetch("/f/fn/early", { method: "POST", body });
    assert.equal(await response.text(), "early");
  }
});

test("bodies over 6 MiB are refused, declared or counted", async () => {
  const declared = await rig.fetch("/f/fn/echo", {
    method: "POST",
    body: Buffer.alloc((6 << 20) + 1),
  });
  assert.equal(declared.status, 413);
  assert.equal(await codeOf(declared), "body_too_large");
  rig.worker.behaviours.set("/swallow", async ({ body, gone }) => {
    await Promise.race([body, gone]);
  });
  const chunked = raw("/f/fn/swallow", "POST");
  const answered = once(chunked, "response") as Promise<[IncomingMessage]>;
  chunked.on("error", () => {});
  for (let n = 0; n < 7; n++) chunked.write(Buffer.alloc(1 << 20));
  const [response] = await answered;
  assert.equal(response.statusCode, 413);
  response.resume();
  chunked.destroy();
});

const REFUSED: [title: string, path: string, init: RequestInit, status: number, code: string][] = [
  ["an unknown function", "/f/none/", {}, 404, "function_not_found"],
  ["a name that can be none", "/f/No_Name/", {}, 404, "function_not_found"],
  ["an unknown version", "/f/fn@7/", {}, 404, "version_not_found"],
  ["an alias", "/f/fn@live/", {}, 404, "version_not_found"],
  ["no function at all", "/f/", {}, 404, "not_found"],
  ["a broken escape", "/f/fn/%zz", {}, 400, "bad_request"],
  ["a name in broken UTF-8", "/f/%ff/", {}, 400, "bad_request"],
  ["NUL", "/f/fn/a%00b", {}, 400, "bad_request"],
  [
    "another isolation",
    "/f/fn/",
    { headers: { "cloister-isolation": "none" } },
    400,
    "bad_request",
  ],
  ["no key", "/f/fn/", { headers: { authorization: "" } }, 401, "unauthenticated"],
  [
    "a key of another form",
    "/f/fn/",
    { headers: { authorization: "Bearer cl_x" } },
    401,
    "unauthenticated",
  ],
  [
    "a key that is not there",
    "/f/fn/",
    { headers: { authorization: `Bearer cl_${"0".repeat(26)}_${"A".repeat(43)}` } },
    401,
    "unauthenticated",
  ],
];
for (const [title, path, init, status, code] of REFUSED)
  test(`refused: ${title}`, async () => {
    const response = await rig.fetch(path, init);
    assert.equal(response.status, status);
    assert.equal(await codeOf(response), code);
    if (status === 401) assert.match(response.headers.get("www-authenticate") ?? "", /^Bearer/);
  });

const MALFORMED: [title: string, head: string, status: number, code: string][] = [
  ["dot segments", "GET /f/fn/a/../b HTTP/1.1", 400, "bad_request"],
  ["escaped dot segments", "GET /f/fn/%2e%2E/b HTTP/1.1", 400, "bad_request"],
  ["dot segments behind an escaped slash", "GET /f/fn/a%2f%2e%2e HTTP/1.1", 400, "bad_request"],
  ["CONNECT", "CONNECT x:1 HTTP/1.1", 405, "method_not_allowed"],
  ["a host that is none, for the API", "GET /healthz HTTP/1.1\r\nhost: a b", 400, "bad_request"],
  ["an address that is none", "OPTIONS * HTTP/1.1", 400, "bad_request"],
  [
    "two lengths",
    "POST /f/fn/ HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked",
    400,
    "bad_request",
  ],
  ["a length that is none", "POST /f/fn/ HTTP/1.1\r\ncontent-length: -1", 400, "bad_request"],
  ["a method that is none", "BREW /f/fn/ HTTP/1.1", 400, "bad_request"],
  ["no HTTP", "hello", 400, "bad_request"],
  [
    "headers that are too large",
    `GET /f/fn/ HTTP/1.1\r\nx: ${"y".repeat(20_000)}`,
    431,
    "headers_too_large",
  ],
  ["a host that is none", "GET /f/fn/ HTTP/1.1\r\nhost: a b", 400, "bad_request"],
  [
    "a websocket",
    "GET /f/fn/ HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade, close",
    501,
    "not_implemented",
  ],
];
for (const [title, head, status, code] of MALFORMED)
  test(`malformed: ${title}`, async () => {
    const host = head.includes("host:") ? "" : "host: x\r\n";
    const close = head.includes("connection:") ? "" : "connection: close\r\n";
    const answer = await exchange(
      `${head}\r\n${host}authorization: Bearer ${rig.key}\r\n${close}\r\n`,
    );
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
    assert.match(answer, new RegExp(`"code":"${code}"`));
  });

test("public functions need no key, and keep an Authorization of their own", async () => {
  await rig.publish("open", { public: true });
  const response = await fetch(`${rig.url}/f/open/`, { headers: { authorization: "Basic eDp5" } });
  assert.equal(response.status, 200);
  assert.ok(
    rig.worker.jobs
      .at(-1)
      ?.head.headers.some(([name, value]) => name === "authorization" && value === "Basic eDp5"),
  );
  // Which names exist is not told without a key.
  for (const name of ["fn", "none"])
    assert.equal((await fetch(`${rig.url}/f/${name}/`)).status, 401);
});

test("errors of the function and of the platform carry their code, type and invocation", async () => {
  rig.worker.behaviours.set("/throws", async ({ reply }) =>
    reply.error({ code: "function_error", message: "thrown on purpose", type: "TypeError" }),
  );
  const response = await rig.fetch("/f/fn/throws");
  const problem = (await response.json()) as Record<string, unknown>;
  assert.equal(response.status, 500);
  assert.equal(problem.code, "function_error");
  assert.equal(problem.detail, "thrown on purpose");
  assert.equal(problem.errorType, "TypeError");
  assert.equal(problem.instance, response.headers.get("cloister-invocation-id"));
  rig.worker.behaviours.set("/unheard", async ({ reply }) =>
    reply.error({ code: "of_another_time", message: "x" }),
  );
  assert.equal(await codeOf(await rig.fetch("/f/fn/unheard")), "internal");
  const seen = Promise.withResolvers<void>();
  rig.worker.behaviours.set("/midway", async ({ reply }) => {
    reply.head(headOf(200));
    reply.sendData(Buffer.from("half"));
    await seen.promise;
    reply.error({ code: "function_error", message: "x" });
  });
  const half = await rig.fetch("/f/fn/midway");
  seen.resolve();
  await assert.rejects(half.text());
});
