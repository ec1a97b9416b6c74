import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, describe, test } from "node:test";
import { BodyReceiver, BodySender } from "#protocol/bodies";
import type { CallStream } from "#protocol/stream";
import { type RunnerProcess, type RunnerRequest, within } from "#testkit/runner-process";
import { Functions, MAJORS } from "./functions.ts";

const json = (body: Buffer): unknown => JSON.parse(body.toString());

interface Streamed {
  stream: CallStream;
  sender: BodySender;
  body: ReadableStream<Uint8Array>;
  /** The trailer or the error. */
  over: Promise<Record<string, unknown>>;
}

/** An invocation whose bodies are streamed both ways. */
function streamed(runner: RunnerProcess, request: RunnerRequest, hasBody: boolean): Streamed {
  const over = Promise.withResolvers<Record<string, unknown>>();
  const receiver = new BodyReceiver(
    (bytes) => stream.consumed(bytes),
    () => stream.cancel(),
  );
  const stream: CallStream = runner.open(request, hasBody, {
    onHead() {},
    onData: receiver.onData,
    onEnd(trailer) {
      receiver.onEnd();
      sender.stop();
      over.resolve(trailer);
    },
    onError(error) {
      receiver.fail(new Error(String(error.message)));
      sender.stop();
      over.resolve(error);
    },
    onDown: (error) => over.reject(error ?? new Error("The runner is gone")),
    onCredit: () => sender.onCredit(),
  });
  const sender = new BodySender(stream);
  return {
    stream,
    sender,
    body: receiver.stream,
    over: within(over.promise, "the end"),
  };
}

const rssMib = (pid: number | undefined): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

for (const major of MAJORS)
  describe(`node ${major}: requests and answers`, () => {
    const functions = new Functions(major);
    afterEach(() => functions.closeRunners());
    after(() => functions.remove());

    test("a request arrives as it was sent, and the answer with its headers", async () => {
      const runner = await functions.serve(`export default { async fetch(request, env, ctx) {
        const seen = { method: request.method, url: request.url, x: request.headers.get('x-a'), text: await request.text(), web: request instanceof Request,
          id: ctx.invocationId, left: ctx.getRemainingTimeInMillis() };
        return new Response(JSON.stringify(seen), { status: 201, headers: [['set-cookie', 'a=1'], ['set-cookie', 'b=2'], ['x-b', 'c']] });
      } };`);
      const answer = await runner.invoke({
        method: "PUT",
        path: "/a%20b?c=d",
        headers: [
          ["host", "hello.test"],
          ["x-a", "1"],
          ["x-a", "2"],
        ],
        body: "grüße",
        deadlineMs: 5000,
      });
      const seen = json(answer.body) as Record<string, unknown>;
      assert.equal(answer.status, 201);
      assert.deepEqual(
        { ...seen, left: undefined },
        {
          method: "PUT",
          url: "http://hello.test/a%20b?c=d",
          x: "1, 2",
          text: "grüße",
          web: true,
          id: "inv_1",
          left: undefined,
        },
      );
      assert.ok(Number(seen.left) > 0 && Number(seen.left) <= 5000);
      assert.deepEqual(
        answer.headers.filter(([name]) => name === "set-cookie").map(([, value]) => value),
        ["a=1", "b=2"],
      );
    });

    test("empty answers, HEAD, and bodies of GET", async () => {
      const runner = await functions.serve(
        "export default { fetch: async (r) => r.method === 'HEAD' ? new Response('not sent') : r.method === 'GET' ? new Response(null, { status: 204 }) : new Response(await r.text() + '|') };",
      );
      const head = await runner.invoke({ method: "HEAD" });
      assert.deepEqual([head.status, head.body.length, head.error], [200, 0, undefined]);
      assert.equal((await runner.invoke()).status, 204);
      assert.equal((await runner.invoke({ method: "GET", body: "dropped" })).status, 204);
      assert.equal((await runner.invoke({ method: "POST", body: "" })).body.toString(), "|");
    });

    test("an event reaches a fetch handler as POST /", async () => {
      const runner = await functions.serve(
        "export default { fetch: async (r) => Response.json([r.method, new URL(r.url).pathname, r.headers.get('content-type'), await r.json()]) };",
      );
      const answer = await runner.invoke({ kind: "event", body: '{"a":1}' });
      assert.deepEqual(json(answer.body), ["POST", "/", "application/json", { a: 1 }]);
    });

    test("handler: event in, JSON out, with its context", async () => {
      const runner = await functions.serve(
        "export const handler = async (event, context) => ({ event, id: context.awsRequestId, same: context.invocationId, name: context.functionName, version: context.functionVersion, mb: context.memoryLimitInMB, left: context.getRemainingTimeInMillis() > 0 });",
      );
      const answer = await runner.invoke({ kind: "event", body: '{"a":[1,null]}' });
      assert.deepEqual(answer.headers, [["content-type", "application/json"]]);
      assert.deepEqual(json(answer.body), {
        event: { a: [1, null] },
        id: "inv_1",
        same: "inv_1",
        name: "hello",
        version: "3",
        mb: 256,
        left: true,
      });
    });

    for (const [title, source, expected] of [
      ["a promise of nothing", "async () => {}", "null"],
      ["a value at once", "() => 5", "5"],
      [
        "a callback",
        "(event, context, callback) => { setTimeout(() => callback(null, 'later'), 2); }",
        '"later"',
      ],
      [
        "a callback at once, whatever is returned",
        "(event, context, callback) => { callback(null, 1); return 2; }",
        "1",
      ],
      ["a thenable", "() => ({ then(resolve) { resolve('then'); } })", '"then"'],
    ] as const)
      test(`handler answers by ${title}`, async () => {
        const runner = await functions.serve(`export const handler = ${source};`);
        const answer = await runner.invoke({ kind: "event", body: "{}" });
        assert.equal(answer.body.toString(), expected);
      });

    test("a second answer is dropped and noted, and the next invocation is its own", async () => {
      const runner = await functions.serve(
        "export const handler = (event, context, callback) => { callback(null, 'first ' + event); callback(null, 'second'); callback(new Error('third')); };",
      );
      for (const n of [1, 2]) {
        const answer = await runner.invoke({ kind: "event", body: String(n) });
        assert.equal(answer.body.toString(), `"first ${n}"`);
        assert.match(answer.log, /answered twice/);
      }
    });

    test("an HTTP request reaches a handler as a function-URL event", async () => {
      const runner = await functions.serve("export const handler = async (event) => event;");
      const answer = await runner.invoke({
        method: "POST",
        path: "/p%20q?a=1&a=2&b=%C3%BC",
        headers: [
          ["host", "f.example.org"],
          ["x-a", "1"],
          ["x-a", "2"],
          ["cookie", "k=v; l=w"],
          ["user-agent", "t"],
          ["content-type", "application/json"],
          ["__proto__", "odd"],
        ],
        body: '{"x":1}',
      });
      const event = json(answer.body) as Record<string, Record<string, Record<string, unknown>>>;
      assert.equal(event.version, "2.0");
      assert.equal(event.rawPath, "/p%20q");
      assert.equal(event.rawQueryString, "a=1&a=2&b=%C3%BC");
      assert.deepEqual(event.queryStringParameters, { a: "1,2", b: "ü" });
      assert.deepEqual(event.cookies, ["k=v", "l=w"]);
      assert.equal(event.headers?.["x-a"], "1, 2");
      assert.equal(
        Object.entries(event.headers ?? {}).find(([k]) => k === "__proto__")?.[1],
        "odd",
      );
      const http = event.requestContext?.http;
      assert.deepEqual([http?.method, http?.path, http?.userAgent], ["POST", "/p%20q", "t"]);
      assert.deepEqual([event.body, event.isBase64Encoded], ['{"x":1}', false]);
      for (const body of [Buffer.from([0xff, 0]), Buffer.from("png")]) {
        const binary = await runner.invoke({
          method: "POST",
          headers: body.length === 2 ? [] : [["content-type", "image/png"]],
          body,
        });
        const seen = json(binary.body) as Record<string, unknown>;
        assert.deepEqual([seen.body, seen.isBase64Encoded], [body.toString("base64"), true]);
      }
    });

    for (const [title, source, status, headers, body] of [
      [
        "a function-URL response",
        "({ statusCode: 201, headers: { 'X-N': 1 }, cookies: ['a=b', 'c=d'], body: 'aGk=', isBase64Encoded: true })",
        201,
        [
          ["x-n", "1"],
          ["set-cookie", "a=b"],
          ["set-cookie", "c=d"],
          ["content-type", "application/json"],
        ],
        "hi",
      ],
      [
        "a redirect without body",
        "({ statusCode: '302', headers: { Location: '/x' } })",
        302,
        [["location", "/x"]],
        "",
      ],
      [
        "an object as body",
        "({ statusCode: 200, body: { a: 1 } })",
        200,
        [["content-type", "application/json"]],
        '{"a":1}',
      ],
      ["an object", "({ a: 1 })", 200, [["content-type", "application/json"]], '{"a":1}'],
      ["text", "'text'", 200, [["content-type", "text/plain; charset=utf-8"]], "text"],
      [
        "bytes",
        "Buffer.from('bytes')",
        200,
        [["content-type", "application/octet-stream"]],
        "bytes",
      ],
      [
        "a generator",
        "(async function* () { yield 'one '; yield 'two'; })()",
        200,
        [["content-type", "text/plain; charset=utf-8"]],
        "one two",
      ],
      [
        "a Response",
        "new Response('web', { status: 202, headers: { 'content-type': 'x/y' } })",
        202,
        [["content-type", "x/y"]],
        "web",
      ],
      ["nothing", "undefined", 200, [["content-type", "application/json"]], "null"],
    ] as const)
      test(`handler answers HTTP with ${title}`, async () => {
        const runner = await functions.serve(`export const handler = async () => ${source};`);
        const answer = await runner.invoke();
        assert.equal(answer.error, undefined);
        assert.deepEqual(
          [answer.status, answer.headers, answer.body.toString()],
          [status, headers, body],
        );
      });

    for (const [title, source, code, message] of [
      ["throws", "throw new TypeError('thrown')", "function_error", /^thrown$/],
      ["rejects with text", "return Promise.reject('a string')", "function_error", /^a string$/],
      ["rejects with nothing", "return Promise.reject()", "function_error", /undefined/],
      ["rejects with a symbol", "return Promise.reject(Symbol('s'))", "function_error", /Symbol/],
      [
        "throws what cannot be looked at",
        "throw new Proxy({}, { get() { throw new Error('no'); } })",
        "function_error",
        /Error/,
      ],
      [
        "throws a message of 1 MB",
        "throw new Error('é'.repeat(1 << 20))",
        "function_error",
        /^é+$/,
      ],
      [
        "returns no Response",
        "return 42",
        "function_bad_response",
        /returned 42.*Return a Response/,
      ],
      ["returns nothing", "", "function_bad_response", /returned undefined/],
      [
        "returns Response.error()",
        "return Response.error()",
        "function_bad_response",
        /status is 0/,
      ],
      [
        "returns a body that was read",
        "const r = new Response('x'); return r.text().then(() => r)",
        "function_bad_response",
        /was read/,
      ],
      [
        "streams what is no bytes",
        "return new Response(new ReadableStream({ start(c) { c.enqueue({}); c.close(); } }))",
        "function_bad_response",
        /Enqueue Uint8Array/,
      ],
      [
        "fails in its stream",
        "return new Response(new ReadableStream({ pull(c) { c.error(new RangeError('midway')); } }))",
        "function_error",
        /midway/,
      ],
    ] as const)
      test(`fetch ${title}`, async () => {
        const runner = await functions.serve(
          `let n = 0; export default { fetch() { if (n++) return new Response('next'); ${source} } };`,
        );
        const { error } = await runner.invoke();
        assert.equal(error?.code, code, JSON.stringify(error));
        assert.match(String(error?.message), message);
        assert.ok(Buffer.byteLength(String(error?.message)) <= 4096);
        assert.ok(Buffer.byteLength(String(error?.stack)) <= 16_384);
        assert.doesNotMatch(String(error?.stack), /runners\/node\/.*\.mjs/);
        assert.equal((await runner.invoke()).body.toString(), "next");
      });

    for (const [title, source] of [
      ["a BigInt", "({ value: 10n })"],
      ["a circle", "(() => { const a = {}; a.a = a; return a; })()"],
      ["a function", "() => 1"],
      ["a throwing toJSON", "({ toJSON() { throw new Error('no'); } })"],
    ] as const)
      test(`a result that is ${title} is a bad response, for events and HTTP`, async () => {
        const runner = await functions.serve(`export const handler = async () => ${source};`);
        for (const kind of ["event", "http"] as const) {
          const { error } = await runner.invoke({ kind, body: "{}" });
          assert.equal(error?.code, "function_bad_response");
          assert.match(String(error?.message), /JSON/);
        }
      });

    for (const [title, source] of [
      ["a status of 99", "({ statusCode: 99 })"],
      ["a status that is text", "({ statusCode: 'ok' })"],
      ["a header with a line break", "({ statusCode: 200, headers: { a: 'b\\r\\nc: d' } })"],
      ["a header without name", "({ statusCode: 200, headers: { '': 'b' } })"],
      ["headers that are a list", "({ statusCode: 200, headers: ['a'] })"],
      ["a body that is no base64", "({ statusCode: 200, body: '***', isBase64Encoded: true })"],
      ["headers of 300 KiB", "({ statusCode: 200, headers: { a: 'b'.repeat(300 << 10) } })"],
      ["a generator of objects", "(function* () { yield {}; })()"],
    ] as const)
      test(`${title} is a bad response`, async () => {
        const runner = await functions.serve(`export const handler = async () => ${source};`);
        assert.equal((await runner.invoke()).error?.code, "function_bad_response");
      });

    test("an event that is no JSON is an error of that invocation", async () => {
      const runner = await functions.serve("export const handler = async () => 1;");
      assert.match(
        String((await runner.invoke({ kind: "event", body: "{" })).error?.message),
        /not JSON/,
      );
      assert.equal((await runner.invoke({ kind: "event", body: "{}" })).body.toString(), "1");
    });

    test("a body of 6 MiB passes both ways; a handler refuses one byte more", async () => {
      const web = await functions.serve(
        "export default { fetch: async (r) => new Response(await r.arrayBuffer()) };",
      );
      const handler = await functions.serve(
        "export const handler = async (e) => Buffer.from(e.body, 'base64');",
      );
      const limit = 6 << 20;
      const bytes = Buffer.alloc(limit + 1, "0123456789abcdef");
      for (const [runner, length] of [
        [web, limit],
        [handler, limit],
        [handler, limit + 1],
      ] as const) {
        const call = streamed(runner, { method: "POST", headers: [["content-type", "x/y"]] }, true);
        const sent = call.sender
          .send(bytes.subarray(0, length))
          .then((all) => all && call.stream.endBody());
        if (length > limit) {
          assert.equal((await call.over).type, "BodyTooLarge");
          await sent;
          continue;
        }
        const back = Buffer.from(await new Response(call.body).arrayBuffer());
        assert.ok(back.equals(bytes.subarray(0, length)));
        await sent;
      }
    });

    test("request and answer stream at once, piece by piece", async () => {
      const runner = await functions.serve(
        "export default { fetch: (r) => new Response(r.body.pipeThrough(new TransformStream({ transform(c, t) { t.enqueue(new TextEncoder().encode(new TextDecoder().decode(c).toUpperCase())); } }))) };",
      );
      const call = streamed(runner, { method: "POST" }, true);
      const reader = call.body.getReader();
      for (const word of ["one", "two"]) {
        await call.sender.send(word);
        const { value } = await within(reader.read(), "a piece");
        assert.equal(Buffer.from(value ?? []).toString(), word.toUpperCase());
      }
      call.stream.endBody();
      assert.equal((await within(reader.read(), "the end")).done, true);
      assert.equal(typeof (await call.over).handlerMs, "number");
    });

    test("a function that does not read its request is not sent more than a window, and may answer", async () => {
      const runner = await functions.serve(
        "export default { fetch: (r) => new Promise((resolve) => { globalThis.go = () => resolve(new Response('unread')); setTimeout(go, 50); }) };",
      );
      const call = streamed(runner, { method: "POST" }, true);
      const sent = call.sender.send(Buffer.alloc(1 << 20));
      assert.equal(await new Response(call.body).text(), "unread");
      assert.equal(await sent, false);
      assert.equal(call.stream.credit, 0);
      assert.equal((await runner.invoke()).body.toString(), "unread");
    });

    test("1 GB is answered in bounded memory, and others are served meanwhile", async () => {
      const runner = await functions.serve(`export default { fetch(request) {
        if (new URL(request.url).pathname === '/small') return new Response('small');
        const chunk = new Uint8Array(1 << 20); let left = 1024;
        return new Response(new ReadableStream({ pull(c) { if (left-- > 0) c.enqueue(chunk.slice()); else c.close(); } }));
      } };`);
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      let bytes = 0;
      let peakMib = 0;
      let small: Promise<unknown> | undefined;
      const stream = runner.open({}, false, {
        onHead() {},
        onData(data) {
          if (bytes >> 27 !== (bytes + data.length) >> 27) {
            peakMib = Math.max(peakMib, rssMib(runner.child.pid));
            small ??= runner.invoke({ path: "/small" });
          }
          bytes += data.length;
          stream.consumed(data.length);
        },
        onEnd: () => resolve(bytes),
        onError: (error) => reject(new Error(String(error.message))),
        onDown: () => reject(new Error("down")),
      });
      stream.endBody();
      assert.equal(await within(promise, "1 GB"), 1 << 30);
      assert.equal(((await small) as { body: Buffer }).body.toString(), "small");
      assert.ok(peakMib < 400, `${peakMib} MiB`);
    });

    test("an answer nobody reads stops at the window, and a neighbour is served", async () => {
      const runner = await functions.serve(`let given = 0; export default { fetch(request) {
        if (new URL(request.url).pathname === '/given') return new Response(String(given));
        return new Response(new ReadableStream({ pull(c) { given += 65536; c.enqueue(new Uint8Array(65536)); } }, { highWaterMark: 0 }));
      } };`);
      const full = Promise.withResolvers<void>();
      let bytes = 0;
      const stream = runner.open({}, false, {
        onHead() {},
        onData(data) {
          bytes += data.length;
          if (bytes === 262_144) full.resolve();
        },
        onEnd() {},
        onError() {},
        onDown() {},
      });
      stream.endBody();
      await within(full.promise, "a window");
      const given = Number((await runner.invoke({ path: "/given" })).body.toString());
      assert.ok(given <= 262_144 + 2 * 65_536, `${given}`);
      assert.equal(bytes, 262_144);
    });

    test("cancel aborts the request's signal, and the sandbox serves on", async () => {
      const runner =
        await functions.serve(`let aborted = 0; export default { fetch(request, env, ctx) {
        if (new URL(request.url).pathname === '/aborted') return new Response(String(aborted));
        return new Promise((resolve, reject) => { console.log('waits'); request.signal.addEventListener('abort', () => { aborted++; reject(request.signal.reason); }); });
      } };`);
      const started = Promise.withResolvers<void>();
      const over = Promise.withResolvers<Record<string, unknown>>();
      const stream = runner.open({}, false, {
        onHead() {},
        onData() {},
        onEnd: over.resolve,
        onError: over.resolve,
        onDown: () => over.reject(new Error("down")),
        onLog: () => started.resolve(),
      });
      stream.endBody();
      await within(started.promise, "the start");
      stream.cancel();
      const error = await within(over.promise, "the end");
      assert.equal(error.code, "function_cancelled");
      assert.equal(error.exiting, undefined);
      assert.equal((await runner.invoke({ path: "/aborted" })).body.toString(), "1");
    });

    test("cancel ends a streamed answer and its source", async () => {
      const runner = await functions.serve(`let stopped = ''; export default { fetch(request) {
        if (new URL(request.url).pathname === '/stopped') return new Response(stopped);
        return new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1000)); return new Promise((r) => setTimeout(r, 1)); }, cancel(reason) { stopped = reason.name; } }));
      } };`);
      const call = streamed(runner, {}, false);
      const reader = call.body.getReader();
      await reader.read();
      await reader.cancel();
      assert.equal((await call.over).code, "function_cancelled");
      assert.equal((await runner.invoke({ path: "/stopped" })).body.toString(), "AbortError");
    });

    test("a function that ignores cancel is said to be of no more use, and ends when the others are done", async () => {
      const runner = await functions.serve(
        "export const handler = async (event) => { console.log('runs'); if (event === 1) await new Promise(() => setInterval(() => {}, 1000)); await new Promise((r) => setTimeout(r, 400)); return 'done'; };",
      );
      const over = Promise.withResolvers<Record<string, unknown>>();
      const started = Promise.withResolvers<void>();
      const stream = runner.open({ kind: "event" }, true, {
        onHead() {},
        onData() {},
        onEnd: over.resolve,
        onError: over.resolve,
        onDown: () => over.reject(new Error("down")),
        onLog: () => started.resolve(),
      });
      stream.sendData(Buffer.from("1"));
      stream.endBody();
      await within(started.promise, "the start");
      const other = runner.invoke({ kind: "event", body: "2" });
      stream.cancel();
      const error = await within(over.promise, "the end");
      assert.deepEqual([error.code, error.exiting], ["function_cancelled", true]);
      assert.equal((await other).body.toString(), '"done"');
      assert.deepEqual(await within(runner.exit, "exit"), { code: 70, signal: null });
    });

    test("a cancel before the event is whole is answered at once, and user code never runs", async () => {
      const runner = await functions.serve("let n = 0; export const handler = async () => ++n;");
      const over = Promise.withResolvers<Record<string, unknown>>();
      const stream = runner.open({ kind: "event" }, true, {
        onHead() {},
        onData() {},
        onEnd: over.resolve,
        onError: over.resolve,
        onDown: () => over.reject(new Error("down")),
      });
      stream.cancel();
      assert.equal((await within(over.promise, "the end")).code, "function_cancelled");
      assert.equal((await runner.invoke({ kind: "event", body: "1" })).body.toString(), "1");
    });

    test("waitUntil goes on after the answer; what it prints and how it fails harm nobody", async () => {
      const runner =
        await functions.serve(`let done = 0; export default { fetch(request, env, ctx) {
        if (new URL(request.url).pathname === '/done') return new Response(String(done));
        ctx.waitUntil(new Promise((resolve) => setTimeout(resolve, 5)).then(() => { done++; console.log('afterwards'); }));
        ctx.waitUntil(Promise.reject(new Error('in vain')));
        return new Response('early');
      } };`);
      assert.equal((await runner.invoke()).body.toString(), "early");
      for (let i = 0; i < 200 && !runner.outsideLog.includes("afterwards"); i++)
        await runner.invoke({ path: "/done" });
      assert.match(runner.outsideLog, /afterwards/);
      assert.equal((await runner.invoke({ path: "/done" })).body.toString(), "1");
    });
  });
