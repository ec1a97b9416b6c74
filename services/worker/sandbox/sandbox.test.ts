import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CloisterError } from "#errors/catalogue";
import { FunctionFolders, pythonLauncher } from "../testkit/python-sandboxes.ts";
import { FrameSocket } from "./frame-socket.ts";
import { initOf, type ServingSandbox, shapeOf, type WholeAnswer, wholeAnswer } from "./index.ts";
import { RunnerLink } from "./runner-link.ts";

const folders = new FunctionFolders();
const launcher = pythonLauncher();
const started: ServingSandbox[] = [];
after(async () => {
  await Promise.all(started.map((sandbox) => sandbox.end()));
  folders.remove();
});

async function serve(source: string): Promise<ServingSandbox> {
  const spec = folders.version(`f${started.length}`, source);
  const bundle = await folders.hold(spec.bundleDigest);
  const assigned = await launcher.launch(shapeOf(spec, "container"), spec.name, bundle, spec);
  const serving = await assigned.initialise(initOf(spec));
  started.push(serving);
  return serving;
}

const ask = (sandbox: ServingSandbox, event: unknown = {}): Promise<WholeAnswer> =>
  wholeAnswer(sandbox, { kind: "event", method: "POST", body: Buffer.from(JSON.stringify(event)) });

test("a sandbox answers, with its log, and again", async () => {
  const sandbox = await serve(
    "def handler(event, context):\n  print('seen', event['n'])\n  return {'twice': event['n'] * 2}\n",
  );
  for (const n of [2, 21]) {
    const answer = await ask(sandbox, { n });
    assert.deepEqual(JSON.parse(answer.body.toString()), { twice: n * 2 });
    assert.match(answer.log, new RegExp(`seen ${n}`));
  }
  assert.ok((sandbox.phases.init_ms ?? 0) > 0);
});

test("an answer larger than every window comes whole", async () => {
  const sandbox = await serve("def handler(event, context):\n  return 'x' * 3000000\n");
  const answer = await ask(sandbox);
  assert.equal(answer.body.length, 3_000_002);
});

test("a function that cannot be loaded is an init error with its message, and its sandbox is gone", async () => {
  const spec = folders.version("broken", "raise ValueError('at load')\n");
  const assigned = await launcher.launch(
    shapeOf(spec, "container"),
    spec.name,
    await folders.hold(spec.bundleDigest),
  );
  await assert.rejects(assigned.initialise(initOf(spec)), (error) => {
    assert.ok(error instanceof CloisterError);
    assert.equal(error.code, "function_init_error");
    assert.match(error.message, /at load/);
    return true;
  });
  await assigned.ended;
  assert.equal(assigned.alive, false);
});

test("init that never ends is a timeout and its sandbox is gone", async () => {
  const spec = folders.version("endless", "while True: pass\n");
  const assigned = await launcher.launch(
    shapeOf(spec, "container"),
    spec.name,
    await folders.hold(spec.bundleDigest),
  );
  await assert.rejects(assigned.initialise(initOf(spec), 300), { code: "function_timeout" });
  await assigned.ended;
});

test("a process that exits midway tells every open invocation, with the code", async () => {
  const sandbox = await serve("import os\ndef handler(event, context):\n  os._exit(3)\n");
  await assert.rejects(ask(sandbox), { code: "function_exited", message: /code 3/ });
});

test("ending a sandbox is prompt even when it runs a busy loop", async () => {
  const sandbox = await serve("def handler(event, context):\n  while True: pass\n");
  const answer = assert.rejects(ask(sandbox));
  await sandbox.end();
  await answer;
  await sandbox.ended;
});

/** A worker's link and the raw socket of a runner that may say anything. */
async function hostileRunner(): Promise<{
  link: RunnerLink;
  runner: Socket;
  down: Promise<Error | undefined>;
}> {
  const path = join(mkdtempSync(join(tmpdir(), "cloister-hostile-")), "s");
  const server = createServer();
  server.listen(path);
  await once(server, "listening");
  const client = connect(path);
  const [accepted] = (await once(server, "connection")) as [Socket];
  server.close();
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  const frames = new FrameSocket(client, { frame() {}, closed() {} });
  const link = new RunnerLink(frames, { ready() {}, answered() {}, strayLog() {}, down: resolve });
  frames.handOver(link);
  accepted.on("error", () => {});
  return { link, runner: accepted, down: promise };
}

function frame(type: number, stream: number, payload: Buffer | object = Buffer.alloc(0)): Buffer {
  const body = Buffer.isBuffer(payload) ? payload : Buffer.from(JSON.stringify(payload));
  const header = Buffer.alloc(12);
  header.writeUInt32LE(body.length, 0);
  header.writeUInt32LE(stream, 4);
  header[8] = type;
  return Buffer.concat([header, body]);
}

const HEAD = frame(0x12, 1, { status: 200, headers: [] });
const HOSTILE: Record<string, Buffer[]> = {
  "bytes that are no frame": [Buffer.alloc(4096, 0xff)],
  "a frame that is too long": [Buffer.from([1, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0])],
  "JSON that is none": [frame(0x12, 1, Buffer.from("{"))],
  "an array where an object belongs": [frame(0x12, 1, Buffer.from("[]"))],
  "DATA before HEAD": [frame(0x03, 1, Buffer.from("x"))],
  "empty DATA": [HEAD, frame(0x03, 1)],
  "DATA beyond the window": [
    HEAD,
    ...Array.from({ length: 5 }, () => frame(0x03, 1, Buffer.alloc(65_536))),
  ],
  "HEAD twice": [HEAD, HEAD],
  "a stream that was never opened": [frame(0x12, 7, { status: 200, headers: [] })],
  "END before HEAD": [frame(0x04, 1, {})],
  "credit without end": [frame(0x06, 1, Buffer.from([0xff, 0xff, 0xff, 0xff]))],
  "a frame of the other direction": [frame(0x02, 1, {})],
  "INIT_DONE without INIT": [frame(0x11, 0, { ok: true })],
  "READY twice": [frame(0x10, 0, {}), frame(0x10, 0, {})],
  "LOG without end": Array.from({ length: 20 }, () =>
    frame(0x14, 1, Buffer.concat([Buffer.from([1]), Buffer.alloc(65_536, "l")])),
  ),
};

for (const [name, bytes] of Object.entries(HOSTILE)) {
  test(`a runner that sends ${name} loses its connection and nothing else`, async () => {
    const { link, runner, down } = await hostileRunner();
    const ended = Promise.withResolvers<void>();
    link.invoke(
      { id: "inv_1" },
      {
        head() {},
        data() {},
        end() {},
        error() {},
        log() {},
        credit() {},
        down: () => ended.resolve(),
      },
    );
    runner.write(Buffer.concat(bytes));
    assert.equal((await down)?.name, "ProtocolError");
    await ended.promise;
    runner.destroy();
  });
}

const ONE = [HEAD, frame(0x04, 1, {})];
const TWO = [frame(0x12, 2, { status: 200, headers: [] }), frame(0x04, 2, {})];

/** Two calls, the second behind the first, of a runner that writes `bytes` at once; what was heard of them in its order. */
async function heardOfTwo(bytes: Buffer[]): Promise<{ heard: string[]; link: RunnerLink }> {
  const { link, runner, down } = await hostileRunner();
  const heard: string[] = [];
  const over = Promise.withResolvers<void>();
  let left = 2;
  const done = (what: string): void => {
    heard.push(what);
    if (--left === 0) over.resolve();
  };
  for (const n of [1, 2])
    link.invoke(
      { id: `inv_${n}` },
      {
        head() {},
        data() {},
        end: () => done(`${n} ends`),
        error: ({ code }) => done(`${n} fails: ${code}`),
        log() {},
        credit() {},
        down: () => done(`${n} is down`),
        begun: () => heard.push(`${n} began`),
      },
      n > 1,
    );
  assert.deepEqual([link.streams, link.underWay], [2, 1]);
  runner.write(Buffer.concat(bytes));
  await over.promise;
  runner.destroy();
  await down;
  return { heard, link };
}

test("a call behind another has begun when that one is answered; of answers that come together each began when its share of the time did", async () => {
  const { heard, link } = await heardOfTwo([...ONE, ...TWO]);
  assert.deepEqual(heard, ["1 began", "1 ends", "2 began", "2 ends"]);
  assert.deepEqual([link.streams, link.underWay], [0, 0]);
});

test("a call that waits can be given back, and is not answered before its turn", async () => {
  const given = frame(0x13, 2, { code: "function_recalled" });
  assert.deepEqual((await heardOfTwo([given, ...ONE])).heard, [
    // Two answers in one read, so that the first one's time is told anew.
    "1 began",
    "2 fails: function_recalled",
    "1 ends",
  ]);
  const early = await heardOfTwo([...TWO, ...ONE]);
  assert.deepEqual(early.heard, ["1 began", "1 is down", "2 is down"]);
});

test("a call that waits is asked back once, however often its runner does not hear", async () => {
  const { link, runner, down } = await hostileRunner();
  let asked = 0;
  const handler = { head() {}, data() {}, end() {}, error() {}, log() {}, credit() {}, down() {} };
  link.invoke({ id: "inv_1" }, handler);
  link.invoke({ id: "inv_2" }, { ...handler, recalled: () => asked++ }, true);
  for (let times = 0; times < 3; times++) link.recall();
  link.send(0x05, 1);
  let got = Buffer.alloc(0);
  while (!got.includes(frame(0x05, 1))) got = Buffer.concat([got, (await once(runner, "data"))[0]]);
  assert.equal(asked, 1);
  assert.equal(got.indexOf(frame(0x08, 2)), got.lastIndexOf(frame(0x08, 2)));
  assert.ok(got.includes(frame(0x08, 2)));
  runner.destroy();
  await down;
});

test("frames that arrive byte by byte are whole frames", async () => {
  const { link, runner, down } = await hostileRunner();
  const got = Promise.withResolvers<string>();
  link.invoke(
    { id: "inv_1" },
    {
      head() {},
      data: (bytes) => got.resolve(bytes.toString()),
      end() {},
      error() {},
      log() {},
      credit() {},
      down() {},
    },
  );
  for (const byte of Buffer.concat([HEAD, frame(0x03, 1, Buffer.from("hello"))])) {
    if (!runner.write(Buffer.from([byte]))) await once(runner, "drain");
  }
  assert.equal(await got.promise, "hello");
  runner.destroy();
  await down;
});
