import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { Conversation, FRAME, type Request } from "../conversation.ts";

const PYTHON = process.env.CLOISTER_TEST_PYTHON ?? "/usr/bin/python3";
const RUNNER = join(import.meta.dirname, "runner.py");

const folders: string[] = [];
const conversations: Conversation[] = [];
after(async () => {
  for (const conversation of conversations) await conversation.close();
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function bundle(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), "cloister-python-"));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

function runner(): Conversation {
  const argv = [PYTHON, "-I", "-S", "-B", "-X", "utf8", RUNNER];
  const env = { PATH: "/usr/bin:/bin", LANG: "C.UTF-8", MALLOC_ARENA_MAX: "1" };
  const conversation = new Conversation(argv, env);
  conversations.push(conversation);
  return conversation;
}

async function load(files: string | Record<string, string>, init: Record<string, unknown> = {}) {
  const conversation = runner();
  const folder = bundle(typeof files === "string" ? { "main.py": files } : files);
  return { conversation, done: await conversation.init(folder, init) };
}

async function serve(files: string | Record<string, string>, init: Record<string, unknown> = {}) {
  const { conversation, done } = await load(files, init);
  assert.equal(done.error, undefined);
  return conversation;
}

async function call(files: string | Record<string, string>, request: Request = {}) {
  return (await serve(files)).invoke(request);
}

const HTTP: Request = { kind: "http", method: "GET" };

for (const [kind, prefix] of [
  ["sync", ""],
  ["async", "async "],
] as const) {
  test(`a ${kind} handler answers an event as JSON`, async () => {
    const conversation = await serve(
      `${prefix}def handler(event, context):\n    return {"got": event}\n`,
    );
    for (let count = 0; count < 3; count++) {
      const answer = await conversation.invoke({ body: `{"a":${count}}` });
      assert.equal(answer.head?.status, 200);
      assert.deepEqual(JSON.parse(answer.body.toString()), { got: { a: count } });
      assert.ok((answer.trailer?.handlerMs ?? -1) >= 0);
    }
    assert.equal((await conversation.invoke()).body.toString(), '{"got": null}');
  });

  test(`a ${kind} handler that raises gives type, message and its own stack, and serves on`, async () => {
    const conversation = await serve(
      `def inner():\n    raise KeyError("nope")\n${prefix}def handler(event, context):\n    if event: inner()\n    return 1\n`,
    );
    const answer = await conversation.invoke({ body: "1" });
    assert.equal(answer.error?.code, "function_error");
    assert.equal(answer.error?.type, "KeyError");
    assert.match(answer.error?.message ?? "", /nope/);
    assert.match(answer.error?.stack ?? "", /main\.py", line 2, in inner/);
    assert.doesNotMatch(answer.error?.stack ?? "", /_cloister/);
    assert.equal((await conversation.invoke()).body.toString(), "1");
  });

  test(`what a ${kind} handler prints and logs belongs to its invocation`, async () => {
    const conversation = await serve(
      `import sys, logging\nprint("loading")\nlogging.basicConfig(level="INFO")\n${prefix}def handler(event, context):\n` +
        `    print("out", event); print("err", file=sys.stderr); logging.info("log %s", event); sys.stdout.write("open end")\n`,
    );
    const outside = await conversation.next([FRAME.log], 0);
    assert.equal(outside.payload.toString(), "\x01loading\n");
    const answers = await Promise.all(
      [1, 2, 3].map((at) => conversation.invoke({ body: String(at) })),
    );
    for (const [at, answer] of answers.entries()) {
      assert.match(
        answer.log,
        new RegExp(`^out ${at + 1}\nerr\nINFO:root:log ${at + 1}\nopen end\n$`),
      );
    }
  });

  test(`cancelling interrupts a ${kind} handler that sleeps`, async () => {
    const sleep = prefix ? "await asyncio.sleep(600)" : "time.sleep(600)";
    const conversation = await serve(
      `import time, asyncio\n${prefix}def handler(event, context):\n    if event:\n        print("now"); ${sleep}\n    return 2\n`,
    );
    const stream = conversation.open({ body: "1" });
    await conversation.sendBody(stream, Buffer.from("1"));
    await conversation.next([FRAME.log], stream);
    conversation.send(FRAME.cancel, stream);
    const error = await conversation.next([FRAME.error], stream);
    assert.equal(JSON.parse(error.payload.toString()).code, "function_cancelled");
    assert.equal((await conversation.invoke()).body.toString(), "2");
  });

  test(`cancelling a ${kind} handler whose request is not whole ends it`, async () => {
    const conversation = await serve(`${prefix}def handler(event, context): return event\n`);
    const stream = conversation.open({ body: "" });
    conversation.send(FRAME.data, stream, Buffer.from("1"));
    conversation.send(FRAME.cancel, stream);
    const error = await conversation.next([FRAME.error], stream);
    assert.equal(JSON.parse(error.payload.toString()).code, "function_cancelled");
    conversation.send(FRAME.end, stream);
    assert.equal((await conversation.invoke({ body: "2" })).body.toString(), "2");
  });

  test(`results of a ${kind} handler that are no JSON are bad responses`, async () => {
    const conversation = await serve(
      `${prefix}def handler(event, context):\n    loop = []; loop.append(loop)\n    return [object(), loop, float("nan"), {(1,): 2}][event]\n`,
    );
    for (const body of ["0", "1", "2", "3"]) {
      const answer = await conversation.invoke({ body });
      assert.equal(answer.error?.code, "function_bad_response");
    }
  });

  test(`a large answer of a ${kind} handler waits for its window`, async () => {
    const conversation = await serve(
      `${prefix}def handler(event, context):\n    return "x" * 3_000_000\n`,
    );
    const answer = await conversation.invoke();
    assert.equal(answer.body.length, 3_000_002);
    const stream = conversation.open();
    conversation.send(FRAME.end, stream);
    let bytes = 0;
    while (bytes < 262_144) bytes += (await conversation.next([FRAME.data], stream)).payload.length;
    assert.equal(bytes, 262_144);
    const grant = Buffer.alloc(4);
    grant.writeUInt32LE(10);
    conversation.send(FRAME.window, stream, grant);
    assert.equal((await conversation.next([FRAME.data], stream)).payload.length, 10);
    conversation.send(FRAME.cancel, stream);
    await conversation.next([FRAME.error], stream);
  });

  test(`a generator of a ${kind} handler streams an HTTP answer`, async () => {
    const answer = await call(
      prefix
        ? "async def handler(event, context):\n    for n in range(3):\n        yield f'{n};'\n"
        : "def handler(event, context):\n    return (f'{n};' for n in range(3))\n",
      HTTP,
    );
    assert.equal(answer.body.toString(), "0;1;2;");
    assert.deepEqual(answer.head?.headers, [["content-type", "text/plain; charset=utf-8"]]);
  });

  test(`sys.exit in a ${kind} handler is an error of that invocation`, async () => {
    const answer = await call(
      `import sys\n${prefix}def handler(event, context):\n    sys.exit(3)\n`,
    );
    assert.equal(answer.error?.type, "SystemExit");
    assert.match(answer.error?.message ?? "", /sys\.exit\(3\)/);
  });
}

test("an HTTP request comes as a function-URL event", async () => {
  const answer = await call("def handler(event, context):\n    return event\n", {
    kind: "http",
    method: "PUT",
    path: "/a%20b/c?x=1&x=2&y=%C3%BC",
    headers: [
      ["host", "h.test"],
      ["x-a", "1"],
      ["x-a", "2"],
      ["cookie", "k=v; l=w"],
      ["content-type", "image/png"],
    ],
    body: new Uint8Array([255, 0]),
  });
  const event = JSON.parse(answer.body.toString());
  assert.equal(event.version, "2.0");
  assert.equal(event.rawPath, "/a%20b/c");
  assert.equal(event.rawQueryString, "x=1&x=2&y=%C3%BC");
  assert.deepEqual(event.queryStringParameters, { x: "1,2", y: "ü" });
  assert.equal(event.headers["x-a"], "1, 2");
  assert.deepEqual(event.cookies, ["k=v", "l=w"]);
  assert.equal(event.requestContext.http.method, "PUT");
  assert.equal(event.body, "/wA=");
  assert.equal(event.isBase64Encoded, true);
});

test("a function-URL response is unfolded, a string goes as it is", async () => {
  const conversation = await serve(
    `def handler(event, context):
    if event["rawPath"] == "/text": return "plain"
    if event["rawPath"] == "/bad": return {"statusCode": 1000}
    if event["rawPath"] == "/pairs": return {"statusCode": 200, "headers": [1]}
    if event["rawPath"] == "/split": return {"statusCode": 200, "headers": {"a": "b\\r\\nc: d"}}
    return {"statusCode": 201, "headers": {"X-A": 1}, "cookies": ["a=b"], "body": "aGk=", "isBase64Encoded": True}
`,
  );
  const folded = await conversation.invoke(HTTP);
  assert.equal(folded.head?.status, 201);
  assert.equal(folded.body.toString(), "hi");
  assert.deepEqual(folded.head?.headers.slice(0, 2), [
    ["x-a", "1"],
    ["set-cookie", "a=b"],
  ]);
  const text = await conversation.invoke({ ...HTTP, path: "/text" });
  assert.equal(text.body.toString(), "plain");
  for (const path of ["/bad", "/pairs", "/split"]) {
    const bad = await conversation.invoke({ ...HTTP, path });
    assert.equal(bad.error?.code, "function_bad_response");
  }
});

test("context carries names in both styles and the time left", async () => {
  const answer = await call(
    "def handler(event, c):\n    return [c.function_name, c.functionVersion, c.aws_request_id, c.memoryLimitInMB, c.get_remaining_time_in_millis(), c.getRemainingTimeInMillis()]\n",
    { deadlineMs: 5000 },
  );
  const [name, version, id, memoryMb, leftMs, sameMs] = JSON.parse(answer.body.toString());
  assert.deepEqual([name, version, id, memoryMb], ["hello", "3", "inv_1", 256]);
  assert.ok(leftMs > 0 && leftMs <= 5000 && sameMs <= leftMs);
});

test("a handler sees its trace as Lambda tells it, and no other call's", async () => {
  const conversation = await serve(
    'import os\ndef handler(event, c):\n    return [os.environ.get("_X_AMZN_TRACE_ID")]\n',
  );
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  for (const request of [{ kind: "event", body: "{}" }, HTTP] as Request[]) {
    for (const [headers, told] of [
      [
        [["traceparent", traceparent]],
        "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1",
      ],
      [[], null],
      [[["traceparent", "00-x"]], null],
    ] as [[string, string][], string | null][]) {
      const answer = await conversation.invoke({ ...request, headers });
      assert.deepEqual(JSON.parse(answer.body.toString()), [told]);
    }
  }
});

test("handlers may take fewer arguments, and be methods, partials or wrapped", async () => {
  const bodies = {
    "def handler(): return 1": "1",
    "def handler(event): return event": "5",
    "class H:\n    def __call__(self, event, context): return event\nhandler = H()": "5",
    "from functools import partial\ndef f(a, event, context): return [a, event]\nhandler = partial(f, 1)":
      "[1, 5]",
    "def wrap(f):\n    return lambda *a: f(*a)\n@wrap\nasync def handler(event, context): return event":
      "5",
    "def lambda_handler(event, context): return event": "5",
  };
  for (const [source, expected] of Object.entries(bodies)) {
    const answer = await call(source, { body: "5" });
    assert.equal(answer.body.toString(), expected, source);
  }
});

test("several sync invocations run at once", async () => {
  const conversation = await serve(
    "import threading\nbarrier = threading.Barrier(4, timeout=15)\ndef handler(event, context):\n    barrier.wait()\n    return event\n",
  );
  const answers = await Promise.all(
    ["1", "2", "3", "4"].map((body) => conversation.invoke({ body })),
  );
  assert.deepEqual(
    answers.map((answer) => answer.body.toString()),
    ["1", "2", "3", "4"],
  );
});

test("a flood of print is cut after 1 MiB", async () => {
  const answer = await call(
    "def handler(event, context):\n    for n in range(200): print('ü' * 10_000)\n    return 1\n",
  );
  assert.ok(answer.log.endsWith("[cloister] log truncated after 1 MiB\n"));
  assert.ok(Buffer.byteLength(answer.log) < (1 << 20) + 100);
  assert.equal(answer.body.toString(), "1");
});

test("modules beside the entry and in the package folders are found, PYTHONPATH is not needed", async () => {
  const answer = await call({
    "main.py":
      "import one, two, three\ndef handler(event, context):\n    return [one.v, two.v, three.v]\n",
    "one.py": "v = 1",
    "site-packages/two/__init__.py": "v = 2",
    "vendor/three.py": "v = 3",
  });
  assert.deepEqual(JSON.parse(answer.body.toString()), [1, 2, 3]);
});

test("the environment is there before the function loads", async () => {
  const conversation = await serve(
    "import os, time\nK = os.environ['K'], time.tzname[0]\ndef handler(e, c): return K\n",
    {
      env: { K: "v", TZ: "Asia/Tokyo" },
    },
  );
  assert.deepEqual(JSON.parse((await conversation.invoke()).body.toString()), ["v", "JST"]);
});

test("a function sees nothing of what only libc is to read, unless it sets that itself", async () => {
  const source = "import os\ndef handler(e, c): return sorted(os.environ.items())\n";
  for (const [env, seen] of [
    [{}, []],
    [{ MALLOC_ARENA_MAX: "4" }, [["MALLOC_ARENA_MAX", "4"]]],
  ] as const) {
    const conversation = await serve(source, { env });
    const all: [string, string][] = JSON.parse((await conversation.invoke()).body.toString());
    assert.deepEqual(
      all.filter(([name]) => !name.startsWith("CLOISTER_")),
      [["LANG", "C.UTF-8"], ...seen, ["PATH", "/usr/bin:/bin"]],
    );
  }
});

test("a child process does not hold the socket", async () => {
  const answer = await call(
    "import subprocess\ndef handler(e, c):\n    return subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True, close_fds=False).stdout.split()\n",
  );
  assert.ok(!JSON.parse(answer.body.toString()).includes("4"));
});

test("a forked child does not hold the socket, and multiprocessing works", async () => {
  const conversation = await serve(`
import multiprocessing, os
def double(n): return n * 2
def handler(event, context):
    if event == "loose":
        return os.fork() and "parent"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(double, [1, 2, 3])
`);
  assert.equal((await conversation.invoke()).body.toString(), "[2, 4, 6]");
  assert.equal((await conversation.invoke({ body: '"loose"' })).body.toString(), '"parent"');
  assert.equal((await conversation.invoke()).body.toString(), "[2, 4, 6]");
});

test("a forked child does not wait for a thread that was sending and is not there", async () => {
  const answer = await call(`
import gc, os, signal
def handler(event, context):
    wire = next(one for one in gc.get_objects() if type(one).__name__ == "Wire")
    with wire._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            wire.send(b"nobody reads this")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
`);
  assert.equal(answer.body.toString(), "0");
});

test("what cannot be loaded is told at init", async () => {
  const cases: [Record<string, string>, string | undefined, RegExp, string][] = [
    [{ "main.py": "def handler(:\n" }, undefined, /invalid syntax/, "function_init_error"],
    [{ "main.py": "import nothing_there\n" }, undefined, /nothing_there/, "function_init_error"],
    [{ "main.py": "raise SystemExit(2)\n" }, undefined, /sys\.exit\(2\)/, "function_init_error"],
    [{ "main.py": "x = 1\n" }, undefined, /defines no handler/, "function_no_handler"],
    [{ "main.py": "handler = 1\n" }, undefined, /cannot be called/, "function_no_handler"],
    [{ "other.txt": "" }, undefined, /no main\.py.*only other\.txt/, "function_no_handler"],
    [{ "main.py": "" }, "nope.py", /not in the bundle/, "function_no_handler"],
    [{ "main.py": "" }, "../x.py", /outside the function's folder/, "function_init_error"],
  ];
  for (const [files, entry, message, code] of cases) {
    const { conversation, done } = await load(files, entry ? { entry } : {});
    assert.equal(done.ok, false);
    assert.equal(done.error?.code, code);
    assert.match(done.error?.message ?? "", message);
    assert.equal((await conversation.invoke()).error?.code, code);
  }
});

test("an entry may name its callable and lie in a folder", async () => {
  const conversation = await serve(
    { "src/api.py": "import beside\ndef go(event): return beside.v\n", "src/beside.py": "v = 9" },
    { entry: "src/api.py:go" },
  );
  assert.equal((await conversation.invoke()).body.toString(), "9");
});

test("a function may be named like a module of the standard library", async () => {
  const conversation = await serve(
    { "json.py": "import json\ndef handler(e, c): return json.__name__\n" },
    { entry: "json.py" },
  );
  assert.equal((await conversation.invoke()).body.toString(), '"json"');
});

test("an event that is no JSON is refused, the runner lives on", async () => {
  const conversation = await serve("def handler(event, context): return event\n");
  assert.equal((await conversation.invoke({ body: "{" })).error?.code, "function_bad_response");
  assert.equal((await conversation.invoke({ body: "1" })).body.toString(), "1");
});

test("broken frames end the runner with a protocol error and no crash", async () => {
  const broken = [
    Buffer.from([255, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0]),
    Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]),
    Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0x77, 0, 0, 0]),
    Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 123, 123]),
  ];
  for (const bytes of broken) {
    const conversation = runner();
    await conversation.next([FRAME.ready]);
    conversation.sendRaw(bytes);
    assert.deepEqual(await conversation.exit, { code: 76, signal: null });
    assert.match(conversation.output, /protocol error/);
  }
});

for (const prefix of ["", "async "]) {
  test(`bad streams are protocol errors (${prefix || "sync"})`, async () => {
    const source = `${prefix}def handler(event, context): return event\n`;
    const unopened = await serve(source);
    unopened.send(FRAME.data, 9, Buffer.from("x"));
    assert.equal((await unopened.exit).code, 76);
    const overrun = await serve(source);
    const twice = overrun.open();
    overrun.send(FRAME.invoke, twice, { id: "x", kind: "event", deadlineMs: 1 });
    assert.equal((await overrun.exit).code, 76);
  });

  test(`the end of the socket ends a busy runner at once (${prefix || "sync"})`, async () => {
    const conversation = await serve(
      `${prefix}def handler(event, context):\n    print("now")\n    while True: pass\n`,
    );
    const stream = conversation.open();
    conversation.send(FRAME.end, stream);
    await conversation.next([FRAME.log], stream);
    assert.deepEqual(await conversation.close(), { code: 0, signal: null });
  });
}

test("the end of the socket ends a runner whose function never finishes loading", async () => {
  const conversation = runner();
  await conversation.next([FRAME.ready]);
  conversation.send(FRAME.init, 0, {
    function: "f",
    version: 1,
    root: bundle({ "main.py": "print('in')\nwhile True: pass\n" }),
  });
  await conversation.next([FRAME.log], 0);
  assert.deepEqual(await conversation.close(), { code: 0, signal: null });
});
