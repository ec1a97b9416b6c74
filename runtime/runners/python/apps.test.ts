import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Conversation, FRAME } from "../conversation.ts";

const PYTHON = process.env.CLOISTER_TEST_PYTHON ?? "/usr/bin/python3";
const RUNNER = join(import.meta.dirname, "runner.py");

const folders: string[] = [];
const conversations: Conversation[] = [];
after(async () => {
  for (const conversation of conversations) await conversation.close();
  for (const folder of folders) rmSync(folder, { recursive: true });
});

async function load(source: string) {
  const folder = mkdtempSync(join(tmpdir(), "cloister-python-"));
  folders.push(folder);
  writeFileSync(join(folder, "app.py"), source);
  const argv = [PYTHON, "-I", "-S", "-B", "-X", "utf8", RUNNER];
  const conversation = new Conversation(argv, { PATH: "/usr/bin:/bin", LANG: "C.UTF-8" });
  conversations.push(conversation);
  return { conversation, done: await conversation.init(folder) };
}

async function serve(source: string): Promise<Conversation> {
  const { conversation, done } = await load(source);
  assert.equal(done.error, undefined);
  return conversation;
}

const ASGI_START = `await send({"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1"), (b"x-a", b"2")]})`;

/** An ASGI and a WSGI app that answer with what they saw of the request. */
const ECHO = {
  asgi: `
import json
async def app(scope, receive, send):
    assert scope["type"] == "http"
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]: break
    ${ASGI_START}
    seen = [scope["method"], scope["path"], scope["query_string"].decode(), dict(scope["headers"])[b"x-in"].decode(), size]
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
`,
  wsgi: `
import json
def app(environ, start_response):
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("X-A", "1"), ("x-a", "2")])
    path = environ["PATH_INFO"].encode("latin-1").decode()
    return [json.dumps([environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], environ["HTTP_X_IN"], size]).encode()]
`,
};

/** Apps that answer in pieces: one, then what they read, for each piece read. */
const DUPLEX = {
  asgi: `
async def app(scope, receive, send):
    ${ASGI_START}
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    while True:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        if not more: break
`,
  wsgi: `
def app(environ, start_response):
    start_response("200 OK", [])
    def pieces():
        yield b"fi"
        yield b"rst"
        while piece := environ["wsgi.input"].read1(65536):
            yield piece
    return pieces()
`,
};

const FAILING = {
  asgi: `async def app(scope, receive, send):\n    if scope["type"] == "http": raise KeyError("x")\n`,
  wsgi: `def app(environ, start_response):\n    raise KeyError("x")\n`,
};

const SILENT = {
  asgi: "async def app(scope, receive, send):\n    pass\n",
  wsgi: "def app(environ, start_response):\n    return []\n",
};

const ENDLESS = {
  asgi: `
async def app(scope, receive, send):
    ${ASGI_START}
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
`,
  wsgi: `
def app(environ, start_response):
    start_response("200 OK", [])
    while True:
        yield b"x" * 65536
`,
};

for (const kind of ["asgi", "wsgi"] as const) {
  test(`${kind}: method, path, query, headers and a large body arrive; repeated headers leave`, async () => {
    const conversation = await serve(ECHO[kind]);
    const answer = await conversation.invoke({
      kind: "http",
      method: "PUT",
      path: "/%C3%BC/b?q=%20",
      headers: [["x-in", "v"]],
      body: "x".repeat(2_000_000),
    });
    assert.deepEqual(JSON.parse(answer.body.toString()), ["PUT", "/ü/b", "q=%20", "v", 2_000_000]);
    assert.deepEqual(answer.head?.headers, [
      ["x-a", "1"],
      ["x-a", "2"],
    ]);
  });

  test(`${kind}: answer and request stream at once`, async () => {
    const conversation = await serve(DUPLEX[kind]);
    const stream = conversation.open({ kind: "http", body: "" });
    let text = "";
    const read = async (until: string) => {
      while (!text.endsWith(until)) {
        text += (await conversation.next([FRAME.data], stream)).payload.toString();
      }
    };
    // A WSGI piece leaves when the app is asked for the next: its first is seen with the second.
    await read(kind === "asgi" ? "first" : "fi");
    conversation.send(FRAME.data, stream, Buffer.from("one"));
    await read(kind === "asgi" ? "one" : "rst");
    conversation.send(FRAME.data, stream, Buffer.from("two"));
    conversation.send(FRAME.end, stream);
    await read("two");
    await conversation.next([FRAME.end], stream);
    assert.equal(text, "firstonetwo");
  });

  test(`${kind}: an app that raises is a function error, one that stays silent a bad response`, async () => {
    const failed = await (await serve(FAILING[kind])).invoke({ kind: "http" });
    assert.equal(failed.error?.type, "KeyError");
    const silent = await (await serve(SILENT[kind])).invoke({ kind: "http" });
    assert.equal(silent.error?.code, "function_bad_response");
  });

  test(`${kind}: an endless answer stops at the window and ends when cancelled`, async () => {
    const conversation = await serve(ENDLESS[kind]);
    const stream = conversation.open({ kind: "http" });
    conversation.send(FRAME.end, stream);
    let bytes = 0;
    while (bytes < 262_144) bytes += (await conversation.next([FRAME.data], stream)).payload.length;
    assert.equal(bytes, 262_144);
    conversation.send(FRAME.cancel, stream);
    const error = await conversation.next([FRAME.error], stream);
    assert.equal(JSON.parse(error.payload.toString()).code, "function_cancelled");
  });

  test(`${kind}: an event is a POST of JSON to /`, async () => {
    const answer = await (
      await serve(
        ECHO[kind]
          .replaceAll(/x-in|X_IN/g, "content-type")
          .replace("HTTP_content-type", "CONTENT_TYPE"),
      )
    ).invoke({
      kind: "event",
      body: "[1]",
    });
    assert.deepEqual(JSON.parse(answer.body.toString()), ["POST", "/", "", "application/json", 3]);
  });
}

test("asgi: lifespan startup runs before init is done and its state reaches requests", async () => {
  const conversation = await serve(`
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["ready"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        await receive()
    else:
        ${ASGI_START}
        await send({"type": "http.response.body", "body": scope["state"]["ready"].encode()})
`);
  assert.equal((await conversation.invoke({ kind: "http" })).body.toString(), "yes");
});

test("asgi: a failed startup is an init error", async () => {
  const { done } = await load(`
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
`);
  assert.equal(done.error?.code, "function_init_error");
  assert.match(done.error?.message ?? "", /no database/);
});

test("asgi: http.disconnect comes before the cancellation, also to one who waits for the body", async () => {
  const conversation = await serve(`
async def app(scope, receive, send):
    ${ASGI_START}
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    print((await receive())["type"])
`);
  const stream = conversation.open({ kind: "http" });
  await conversation.next([FRAME.data], stream);
  conversation.send(FRAME.cancel, stream);
  const log = await conversation.next([FRAME.log], stream);
  assert.equal(log.payload.subarray(1).toString(), "http.disconnect\n");
});

test("asgi: a caller who goes away is told by http.disconnect", async () => {
  const conversation = await serve(`
async def app(scope, receive, send):
    ${ASGI_START}
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await receive()
    try:
        message = await receive()
    finally:
        print("left")
`);
  const stream = conversation.open({ kind: "http" });
  conversation.send(FRAME.end, stream);
  await conversation.next([FRAME.data], stream);
  conversation.send(FRAME.cancel, stream);
  const log = await conversation.next([FRAME.log], stream);
  assert.equal(log.payload.subarray(1).toString(), "left\n");
});

test("wsgi: start_response twice, text instead of bytes, and no start are bad responses", async () => {
  const apps = [
    `def app(e, s):\n    s("200 OK", []); s("200 OK", []); return [b""]\n`,
    `def app(e, s):\n    s("200 OK", []); return ["text"]\n`,
    `def app(e, s):\n    return [b"x"]\n`,
    `def app(e, s):\n    s("OK", []); return [b""]\n`,
  ];
  for (const source of apps) {
    const answer = await (await serve(source)).invoke({ kind: "http" });
    assert.equal(answer.error?.code, "function_bad_response", source);
  }
});

test("wsgi: close is called when the answer is over", async () => {
  const answer = await (
    await serve(`
class Body:
    def __iter__(self): return iter([b"a", b"b"])
    def close(self): print("closed")
def app(environ, start_response):
    start_response("200 OK", [])
    return Body()
`)
  ).invoke({ kind: "http" });
  assert.equal(answer.body.toString(), "ab");
  assert.equal(answer.log, "closed\n");
});
