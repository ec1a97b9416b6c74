import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { Runtime } from "#contracts/function";
import { FunctionRunners } from "#testkit/function-runner";
import {
  type RunnerAnswer,
  type RunnerProcess,
  type RunnerRequest,
  within,
} from "#testkit/runner-process";
import { Conversation, FRAME } from "../runtime/runners/conversation.ts";
import { packFunction } from "../services/cli/bundle/pack.ts";
import { expectationOf, isExpected } from "../services/cli/demo/expected.ts";

const NAMES = readdirSync(import.meta.dirname, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .sort();
/** What both streams say. */
const SENTENCE = "An answer that streams has begun before it is whole. \n";
const NODES: readonly Runtime[] = ["node20", "node22", "node24", "node26"];

const runners = new FunctionRunners();
after(() => runners.close());

const folderOf = (name: string): string => join(import.meta.dirname, name);
const unpacked = (name: string) => runners.unpacked(folderOf(name));
const serve = (name: string, runtime?: Runtime) => runners.serve(folderOf(name), runtime);

const text = (answer: RunnerAnswer): string => answer.body.toString();
const json = (answer: RunnerAnswer): unknown => JSON.parse(text(answer));
const type = (answer: RunnerAnswer): string | undefined =>
  answer.headers.find(([name]) => name === "content-type")?.[1];

/** The pieces of a streamed answer, in the order they came. */
async function piecesOf(runner: RunnerProcess, request: RunnerRequest): Promise<string[]> {
  const pieces: string[] = [];
  const whole = Promise.withResolvers<string[]>();
  const failed = (error: unknown): void => whole.reject(new Error(JSON.stringify(error)));
  const stream = runner.open(request, false, {
    onHead: (head) => assert.equal(head.status, 200),
    onData(bytes) {
      pieces.push(bytes.toString());
      stream.consumed(bytes.length);
    },
    onEnd: () => whole.resolve(pieces),
    onError: failed,
    onDown: failed,
  });
  stream.endBody();
  return within(whole.promise, "an end");
}

describe("every example", () => {
  for (const name of NAMES)
    test(`${name} is described, loads, and answers the demo's call twice`, async () => {
      assert.ok(isExpected(name), `services/cli/demo/expected.ts has nothing for ${name}`);
      const { config } = await packFunction(join(import.meta.dirname, name));
      assert.equal(config.name, name);
      const { path, method = "GET", body, answer } = expectationOf(name);
      const runner = await serve(name);
      for (const _time of ["first", "second"]) {
        const given = await runner.invoke({
          path,
          method,
          ...(body === undefined ? {} : { body }),
        });
        assert.equal(given.error, undefined);
        assert.equal(given.status, 200);
        assert.match(text(given), answer);
      }
    });
});

describe("hello runs unchanged on every Node", () => {
  for (const runtime of NODES)
    test(runtime, async () => {
      const runner = await serve("hello", runtime);
      assert.deepEqual(json(await runner.invoke({ path: "/?name=you" })), {
        message: "Hello, you!",
      });
      assert.deepEqual(json(await runner.invoke({ kind: "event", body: "{}" })), {
        message: "Hello, world!",
      });
    });
});

test("hello-python and hello-binary answer events too", async () => {
  const python = await serve("hello-python");
  const greeting = await python.invoke({ kind: "event", body: '{"name":"you"}' });
  assert.partialDeepStrictEqual(json(greeting), { message: "Hello, you!", runtime: "python3" });
  assert.equal(greeting.log, "greeting you\n");
  const binary = await serve("hello-binary");
  const native = await binary.invoke({ kind: "event", body: '{"n":1}' });
  assert.partialDeepStrictEqual(json(native), { runtime: "binary", event: { n: 1 } });
  assert.equal(native.log, "an event of 7 bytes\n");
});

test("hono routes, checks bodies and answers what is not there", async () => {
  const runner = await serve("hono");
  const sum = (body: string): Promise<RunnerAnswer> =>
    runner.invoke({ path: "/sum", body, headers: [["content-type", "application/json"]] });
  assert.deepEqual(json(await sum('{"numbers":[1,2,39]}')), { sum: 42 });
  for (const wrong of ["no JSON", "null", "{}", '{"numbers":[1,"2"]}'])
    assert.equal((await sum(wrong)).status, 400, wrong);
  const missing = await runner.invoke({ path: "/nowhere" });
  assert.equal(missing.status, 404);
  assert.deepEqual(json(missing), { error: "There is no GET /nowhere." });
});

test("markdown renders, and passes on no HTML and no script of the text", async () => {
  const runner = await serve("markdown");
  const page = await runner.invoke({
    body: "# Title\n\n- see https://example.org\n- <script>alert(1)</script>\n- [x](javascript:alert)",
  });
  assert.equal(type(page), "text/html; charset=utf-8");
  assert.match(text(page), /<h1>Title<\/h1>/);
  assert.match(text(page), /<a href="https:\/\/example\.org">/);
  assert.match(text(page), /&lt;script&gt;/);
  assert.doesNotMatch(text(page), /<script|href="javascript:/);
  assert.equal((await runner.invoke()).status, 405);
});

test("primes counts right in every size and refuses another", async () => {
  const runner = await serve("primes");
  // https://oeis.org/A006880: primes below 10^5, 10^6, 10^7.
  for (const [size, primes] of Object.entries({ small: 9592, medium: 78_498, large: 664_579 }))
    assert.partialDeepStrictEqual(json(await runner.invoke({ path: `/?size=${size}` })), {
      size,
      primes,
    });
  for (const size of ["huge", "toString"])
    assert.equal((await runner.invoke({ path: `/?size=${size}` })).status, 400);
});

test("stream sends words and events one by one", async () => {
  const runner = await serve("stream");
  const words = await piecesOf(runner, { path: "/" });
  assert.deepEqual(words.slice(0, 3), ["An ", "answer ", "that "]);
  assert.equal(words.length, 11);
  const events = await runner.invoke({ path: "/events" });
  assert.equal(type(events), "text/event-stream");
  assert.equal(text(events).match(/^data: /gm)?.length, 5);
  const rest = await piecesOf(runner, { path: "/events", headers: [["last-event-id", "3"]] });
  assert.deepEqual(rest, ['id: 4\ndata: {"tick":4}\n\n', 'id: 5\ndata: {"tick":5}\n\n']);
  const wrong = await runner.invoke({ path: "/events", headers: [["last-event-id", "x"]] });
  assert.equal(wrong.status, 400);
});

for (const [name, log] of [
  ["stream", ""],
  ["stream-python", "the caller has gone\n"],
] as const)
  test(`${name} stops when the caller hangs up, and serves the next`, async () => {
    const { argv, env, root, fields } = await unpacked(name);
    const worker = new Conversation(argv, env);
    try {
      assert.equal((await worker.init(root, fields)).ok, true);
      const stream = worker.open({ kind: "http", method: "GET" });
      worker.send(FRAME.end, stream);
      await worker.next([FRAME.data], stream);
      worker.send(FRAME.cancel, stream);
      const cut = await worker.answer(stream);
      assert.equal(cut.error?.code, "function_cancelled");
      assert.equal(cut.log, log);
      assert.ok(cut.body.length < SENTENCE.length);
      const next = await worker.invoke({ kind: "http", method: "GET" });
      assert.equal(next.body.toString(), SENTENCE);
    } finally {
      await worker.close();
    }
  });

test("typescript adds up an order and refuses what is none", async () => {
  for (const runtime of ["node22", "node24", "node26"] as const) {
    const runner = await serve("typescript", runtime);
    const order = [
      { name: "pen", count: 2, priceCents: 150 },
      { name: "ink", count: 1, priceCents: 990 },
    ];
    const receipt = await runner.invoke({ body: JSON.stringify(order) });
    assert.deepEqual(json(receipt), { items: 3, totalCents: 1290 });
    for (const wrong of ["no JSON", "{}", '[{"name":"pen","count":0.5,"priceCents":1}]'])
      assert.equal((await runner.invoke({ body: wrong })).status, 400, wrong);
  }
});
