import assert from "node:assert/strict";
import { after, afterEach, describe, test } from "node:test";
import type { RunnerProcess } from "#testkit/runner-process";
import { Functions, MAJORS } from "./functions.ts";

/** Arguments of Response, as source. What is made of them is to be what Node's own class makes. */
const RESPONSES = [
  "",
  "undefined",
  "null",
  "'text'",
  "''",
  "'grüße \\ud800'",
  "5",
  "new URLSearchParams('a=1')",
  "Buffer.from('bytes')",
  "new ReadableStream({ start(c) { c.enqueue(Buffer.from('streamed')); c.close(); } })",
  "'x', undefined",
  "'x', null",
  "'x', 5",
  "'x', {}",
  "'x', { status: 201 }",
  "'x', { status: undefined, headers: undefined }",
  "'x', { status: null }",
  "'x', { status: '202' }",
  "'x', { status: 200.5 }",
  "'x', { status: 199 }",
  "'x', { status: 600 }",
  "'x', { status: 204 }",
  "'', { status: 304 }",
  "null, { status: 204 }",
  "null, { status: 404, headers: { a: '1' } }",
  "'x', { statusText: 'Fine' }",
  "'x', { statusText: 'not\\nfine' }",
  "'x', { headers: { 'X-Name': 'value', etag: '\"1\"', 'content-type': 'text/html' } }",
  "'x', { headers: { 'Content-Type': 'text/css' } }",
  "'x', { headers: [['b', '2'], ['a', '1']] }",
  "'x', { headers: [['a', '1'], ['A', '2']] }",
  "'x', { headers: [['set-cookie', 'a=1'], ['set-cookie', 'b=2']] }",
  "'x', { headers: { A: '1', a: '2' } }",
  "'x', { headers: [['a']] }",
  "'x', { headers: new Headers({ 'x-a': '1' }) }",
  "'x', { headers: new Headers([['set-cookie', 'b=1'], ['x-b', '1'], ['set-cookie', 'a=2'], ['x-a', 'é']]) }",
  "null, { headers: new Headers([['content-type', 'text/css']]) }",
  "'x', { headers: new (class extends Headers {})([['x-a', '1']]) }",
  "'x', { headers: new Map([['x-a', '1']]) }",
  "'x', { headers: Object.create({ inherited: '1' }) }",
  "'x', { headers: Array.from({ length: 65 }, (_, n) => ['x-' + n, '1']) }",
  "'x', { headers: null }",
  "'x', { headers: 'a: 1' }",
  "'x', { headers: { a: 1 } }",
  "'x', { headers: { a: ' spaces\\t' } }",
  "'x', { headers: { a: '' } }",
  "'x', { headers: { a: 'é' } }",
  "'x', { headers: { a: '日' } }",
  "'x', { headers: { a: 'b\\nc: d' } }",
  "'x', { headers: { 'a b': '1' } }",
  "'x', { headers: { '': '1' } }",
  "'x', { headers: { __proto__: null, a: '1' } }",
  "'x', { headers: JSON.parse('{\"__proto__\": \"1\"}') }",
];

/** Arguments of Response.json, and those of Response that make the same. */
const JSONS = [
  ["{ a: [1, null] }", "'{\"a\":[1,null]}', { headers: { 'content-type': 'application/json' } }"],
  [
    "'text', { status: 201, headers: { etag: '1' } }",
    "'\"text\"', { status: 201, headers: { etag: '1', 'content-type': 'application/json' } }",
  ],
  [
    "null, { headers: { 'Content-Type': 'application/problem+json' } }",
    "'null', { headers: { 'content-type': 'application/problem+json' } }",
  ],
] as const;

const SHOW = `
async function show(make) {
  let r;
  try { r = make(); } catch (error) { return [error.name, error.message]; }
  const { status, statusText, ok, type, url, redirected, bodyUsed } = r;
  return [status, statusText, ok, type, url, redirected, bodyUsed, [...r.headers], r.body === null, await r.text(), r.bodyUsed];
}
// A class that extends Response gives Node's own.
class Own extends Response {}
const make = (Response, index) => [${RESPONSES.map((given) => `() => new Response(${given})`).join(", ")}][index]();
const json = [${JSONS.map(([given, same]) => `[() => Response.json(${given}), () => new Own(${same})]`).join(", ")}];
`;

const parsed = (body: Buffer): unknown => JSON.parse(body.toString());

for (const major of MAJORS)
  describe(`node ${major}: the classes of requests and answers`, () => {
    const functions = new Functions(major);
    afterEach(() => functions.closeRunners());
    after(() => functions.remove());

    test("a Response is what Node's own would be, for all it is made of", async () => {
      const runner = await functions.serve(`${SHOW}
        export const handler = async () => {
          const all = [];
          for (let at = 0; at < ${RESPONSES.length}; at++) all.push([await show(() => make(Response, at)), await show(() => make(Own, at))]);
          for (const [given, same] of json) all.push([await show(given), await show(same)]);
          return all;
        };`);
      const answer = await runner.invoke({ kind: "event", body: "{}" });
      const all = parsed(answer.body) as [unknown, unknown][];
      assert.equal(all.length, RESPONSES.length + JSONS.length);
      for (const [at, [ours, own]] of all.entries())
        assert.deepEqual(ours, own, RESPONSES[at] ?? JSONS[at - RESPONSES.length]?.[0]);
    });

    test("and is sent as Node's own would be", async () => {
      const runner = await functions.serve(`${SHOW}
        export default { fetch(request) {
          const { searchParams } = new URL(request.url);
          const at = Number(searchParams.get("at"));
          const isOwn = searchParams.has("own");
          return at < ${RESPONSES.length} ? make(isOwn ? Own : Response, at) : json[at - ${RESPONSES.length}][isOwn ? 1 : 0]();
        } };`);
      for (let at = 0; at < RESPONSES.length + JSONS.length; at++) {
        const told = async (path: string) => {
          const { status, headers, body, error } = await runner.invoke({ path });
          return [status, headers, body.toString(), error?.code, error?.message];
        };
        assert.deepEqual(await told(`/?at=${at}`), await told(`/?at=${at}&own`), RESPONSES[at]);
      }
    });

    test("what can be told of it is what can be told of Node's own", async () => {
      const runner = await functions.serve(`
        import { inspect } from "node:util";
        class Own extends Response {}
        export const handler = async () => {
          const r = new Response("text", { headers: { a: "1" } });
          let withoutNew;
          try { Response("text"); } catch (error) { withoutNew = error.name; }
          let illegal;
          try { Object.getOwnPropertyDescriptor(Response.prototype, "status").get.call({}); } catch (error) { illegal = error.name; }
          const seen = [r instanceof Response, new Own() instanceof Response, new Own() instanceof Own, r instanceof Own, r.constructor === Response,
            String(r), Object.keys(r).length, JSON.stringify(r), Response.name, Response.length, withoutNew, illegal,
            inspect(new Response("x")).replace(/\\s+/g, " ") === inspect(new Own("x")).replace("Own", "Response").replace(/\\s+/g, " "),
            Response.error().type, Response.redirect("http://a.test/b").headers.get("location"), (await fetch("data:,x")) instanceof Response];
          const copy = r.clone();
          r.headers.set("b", "2");
          seen.push([...r.headers], [...copy.headers], await r.text(), r.bodyUsed, await copy.text(), await r.text().catch((error) => error.name));
          Response.prototype.extra = function () { return this.status; };
          seen.push(new Response("x").extra());
          globalThis.Response = class Mine {};
          seen.push(new Response().constructor.name);
          return seen;
        };`);
      const answer = await runner.invoke({ kind: "event", body: "{}" });
      assert.deepEqual(
        parsed(answer.body),
        [
          ...[true, true, true, false, true, "[object Response]", 0, "{}", "Response", 0],
          ...["TypeError", "TypeError", true, "error", "http://a.test/b", true],
          [
            ["a", "1"],
            ["b", "2"],
            ["content-type", "text/plain;charset=UTF-8"],
          ],
          [
            ["a", "1"],
            ["content-type", "text/plain;charset=UTF-8"],
          ],
          ...["text", true, "text", "TypeError", 200, "Mine"],
        ],
        answer.log,
      );
    });

    test("a Response is sent once, with what was changed before, and its body is read then", async () => {
      const runner = await functions.serve(`
        const again = new Response("again");
        const empty = new Response(null, { status: 204 });
        let late;
        export default { async fetch(request, env, ctx) {
          const { pathname } = new URL(request.url);
          if (pathname === "/changed") { const r = new Response("x"); r.headers.set("x-late", "1"); return r; }
          if (pathname === "/again") return again;
          if (pathname === "/empty") return empty;
          if (pathname === "/read") { const r = new Response("x"); await r.text(); return r; }
          if (pathname === "/seen") return Response.json([again.bodyUsed, await again.text().catch((error) => error.name), again.status, empty.bodyUsed, await late]);
          const r = new Response("late");
          late = new Promise((resolve) => setTimeout(() => resolve(r.bodyUsed), 5));
          return r;
        } };`);
      const changed = await runner.invoke({ path: "/changed" });
      assert.deepEqual(changed.headers, [
        ["content-type", "text/plain;charset=UTF-8"],
        ["x-late", "1"],
      ]);
      assert.equal((await runner.invoke({ path: "/again" })).body.toString(), "again");
      for (const path of ["/again", "/read"])
        assert.match(
          String((await runner.invoke({ path })).error?.message),
          /body was read before it was returned/,
        );
      for (let n = 0; n < 2; n++)
        assert.equal((await runner.invoke({ path: "/empty" })).status, 204);
      await runner.invoke({ path: "/late" });
      const seen = await runner.invoke({ path: "/seen" });
      assert.deepEqual(parsed(seen.body), [true, "TypeError", 200, false, true]);
    });

    test("a call's Request is what Node's own would be", async () => {
      const runner = await functions.serve(`
        import { inspect } from "node:util";
        class Own extends Request {}
        const NAMES = ["method", "url", "bodyUsed", "cache", "credentials", "destination", "integrity", "keepalive", "mode", "redirect", "referrer", "duplex"];
        const show = async (r) => [NAMES.map((name) => r[name]), [...r.headers], r.body === null, r.signal.aborted, r.signal instanceof AbortSignal, r instanceof Request,
          String(r), Object.keys(r).length, inspect(r).length > 100, await r.text(), r.bodyUsed, await r.text().catch((error) => error.name)];
        export default { async fetch(request) {
          const init = { method: request.method, headers: [...request.headers] };
          const text = request.method === "POST" ? await request.clone().text() : undefined;
          return Response.json([await show(request), await show(new Own(request.url, text ? { ...init, body: Buffer.from(text) } : init))]);
        } };`);
      const requests = [
        {},
        { method: "POST", body: "text" },
        { method: "POST", body: "" },
        { method: "HEAD" },
        { method: "DELETE", path: "/a%20b'c/../d?e='f'#g" },
        { method: "OPTIONS", path: "/%7Ea" },
        { path: "/@a?b=@" },
      ];
      const headers: [string, string][] = [
        ["host", "a.test"],
        ["x-a", "1"],
        ["X-A", "2"],
      ];
      for (const request of requests) {
        const answer = await runner.invoke({ ...request, headers });
        if (request.method === "HEAD") continue;
        const [ours, own] = parsed(answer.body) as unknown[];
        assert.deepEqual(ours, own, JSON.stringify(request));
      }
    });

    test("a body is read as text and as JSON as Node's own would be, and once", async () => {
      const runner = await functions.serve(`
        class Own extends Request {}
        const outcome = (promise) => promise.then((value) => value, (error) => [error.name, error.message]);
        const show = async (r, how) => {
          const first = await outcome(r[how]());
          const used = r.bodyUsed;
          let copied;
          try { copied = new Request(r).bodyUsed; } catch (error) { copied = error.name; }
          let cloned;
          try { cloned = await r.clone().text(); } catch (error) { cloned = error.name; }
          return [first, used, await outcome(r.text()), await outcome(r.json()), await outcome(r.arrayBuffer()).then((all) => all.byteLength ?? all), copied, cloned, r.body === null, r.body?.locked];
        };
        export default { async fetch(request) {
          const how = new URL(request.url).searchParams.get("how");
          const bytes = Buffer.from(new URL(request.url).searchParams.get("body"), "latin1");
          const own = new Own(request.url, { method: request.method, headers: request.headers, ...(bytes.length > 0 ? { body: bytes } : {}) });
          return Response.json([await show(request, how), await show(own, how)]);
        } };`);
      for (const how of ["text", "json"])
        for (const body of [
          '{"a":[1,"ü"]}',
          "",
          "no JSON",
          "\u00ef\u00bb\u00bf5",
          "\u00ff\u00fe",
          "null",
        ]) {
          const bytes = body.includes("ü") ? Buffer.from(body) : Buffer.from(body, "latin1");
          const query = new URLSearchParams({ how, body: bytes.toString("latin1") });
          const answer = await runner.invoke({ method: "POST", path: `/?${query}`, body: bytes });
          const [ours, own] = parsed(answer.body) as unknown[];
          assert.deepEqual(ours, own, `${how} of ${body}`);
        }
    });

    test("a Request goes on into others and into fetch, as it was changed", async () => {
      const runner = await functions.serve(`
        import { createServer } from "node:http";
        const server = createServer((asked, answer) => {
          let body = "";
          asked.on("data", (piece) => { body += piece; }).on("end", () => answer.end(JSON.stringify([asked.method, asked.url, asked.headers["x-a"], asked.headers["x-b"], body])));
        });
        const port = new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
        export default { async fetch(request) {
          const to = "http://127.0.0.1:" + (await port) + new URL(request.url).pathname;
          request.headers.set("x-b", "set");
          const seen = [];
          if (request.method === "GET") {
            await request.text();
            seen.push(request.mode);
            request.headers.set("x-b", "set again");
            seen.push(request.clone().headers.get("x-b"), new Request(request).headers.get("x-b"));
            seen.push(new (class Own extends Request {})(request, { method: "PUT" }).headers.get("x-b"));
            // The host of the call leads to nobody: that it is asked at all shows that fetch takes it.
            seen.push(await fetch(request).catch((error) => error.message));
          }
          seen.push(await (await fetch(to, request)).json());
          seen.push(request.bodyUsed);
          server.unref();
          return Response.json(seen);
        } };`);
      const headers = [
        ["host", "nobody.invalid"],
        ["x-a", "1"],
      ] as [string, string][];
      const got = await runner.invoke({ path: "/p", headers });
      assert.deepEqual(parsed(got.body), [
        "cors",
        "set again",
        "set again",
        "set again",
        "fetch failed",
        ["GET", "/p", "1", "set again", ""],
        false,
      ]);
      const posted = await runner.invoke({ method: "POST", path: "/p", headers, body: "text" });
      assert.deepEqual(parsed(posted.body), [["POST", "/p", "1", "set", "text"], true], posted.log);
    });

    test("requests stand in for Node's own in a prepared runner, and in a cold one unless its function may hold Node's own", async () => {
      const served = (held: string) => `
        ${held}
        const early = globalThis.fetch;
        export default { fetch: async (request) => Response.json([Object.getPrototypeOf(request) !== Request.prototype, Object.getPrototypeOf(new Response()) !== Response.prototype,
          await early(request).catch((error) => error.message)]) };`;
      const host = { headers: [["host", "nobody.invalid"]] as [string, string][] };
      const told = async (runner: RunnerProcess) => parsed((await runner.invoke(host)).body);
      const cold = async (held: string) => {
        const runner = functions.spawn();
        const done = await runner.initEarly(functions.folder(served(held)));
        assert.equal(done.ok, true);
        return told(runner);
      };
      const held = "class Own extends Request {} new Own('http://a.test/');";
      for (const source of ["", held])
        assert.deepEqual(await told(await functions.serve(served(source))), [
          true,
          true,
          "fetch failed",
        ]);
      assert.deepEqual(await cold(""), [true, true, "fetch failed"]);
      assert.deepEqual(await cold(held), [false, false, "fetch failed"]);
    });

    test("a function may bring classes of its own", async () => {
      const classes = `
        globalThis.Request = class Mine { constructor(url, init) { this.url = url; this.given = Object.keys(init); } };
        globalThis.Headers = class MyHeaders {};
        globalThis.Response = class Answer { status = 201; headers = new Map([["a", "1"]]); constructor(text) { this.body = new Blob([text]).stream(); } };
        export default { fetch: (request) => new Response([request.constructor.name, request.url].join()) };`;
      const none = `
        globalThis.Request = class Mine { constructor(url) { this.url = url; } };
        globalThis.Response = undefined;
        export default { fetch: (request) => ({ status: 201, headers: new Map([["a", "1"]]), body: new Blob(["Mine," + request.url]).stream() }) };`;
      const cold = async (source: string) => {
        const runner = functions.spawn();
        const done = await runner.initEarly(functions.folder(source));
        assert.equal(done.ok, true, JSON.stringify(done));
        return runner;
      };
      for (const source of [classes, none])
        for (const runner of [await functions.serve(source), await cold(source)]) {
          const answer = await runner.invoke({ path: "/p" });
          assert.deepEqual(
            [answer.status, answer.headers, answer.body.toString(), answer.error],
            [201, [["a", "1"]], "Mine,http://hello.test/p", undefined],
          );
        }
      const headers = `
        globalThis.Headers = class MyHeaders {};
        export default { fetch: (request) => Response.json([request.headers.get("x-a"), request.headers.constructor === Headers]) };`;
      for (const runner of [await functions.serve(headers), await cold(headers)]) {
        const got = await runner.invoke({ headers: [["x-a", "1"]] });
        assert.deepEqual(parsed(got.body), ["1", false]);
      }
    });

    test("a Request can be read when its call is over, and its signal follows the caller", async () => {
      const runner = await functions.serve(`
        let late, aborted;
        export default { fetch(request, env, ctx) {
          const { pathname } = new URL(request.url);
          if (pathname === "/late") { late = new Promise((resolve) => setTimeout(resolve, 5)).then(() => request.text()); return new Response("x"); }
          if (pathname === "/seen") return Promise.all([late, aborted]).then((all) => Response.json(all));
          aborted = new Promise((resolve) => request.signal.addEventListener("abort", () => resolve([request.signal.aborted, new Request(request).signal.aborted])));
          console.log("waiting");
          return aborted.then(() => new Response("x"));
        } };`);
      await runner.invoke({ method: "POST", path: "/late", body: "kept" });
      const over = Promise.withResolvers<void>();
      const stream = runner.open({ path: "/wait" }, false, {
        onHead() {},
        onData() {},
        onLog: () => stream.cancel(),
        onEnd: () => over.resolve(),
        onError: () => over.resolve(),
        onDown: () => over.resolve(),
        onCredit() {},
      });
      await over.promise;
      assert.deepEqual(parsed((await runner.invoke({ path: "/seen" })).body), [
        "kept",
        [true, true],
      ]);
    });
  });
