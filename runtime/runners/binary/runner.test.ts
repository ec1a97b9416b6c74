import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Conversation, FRAME, type Request } from "../conversation.ts";

const RUNNER = join(import.meta.dirname, "../../../target/release/cloister-binary-runner");

const folders: string[] = [];
const conversations: Conversation[] = [];
after(async () => {
  for (const conversation of conversations) await conversation.close();
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function bundle(files: Record<string, string | Uint8Array>, mode = 0o755): string {
  const folder = mkdtempSync(join(tmpdir(), "cloister-binary-"));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), content);
    chmodSync(join(folder, name), mode);
  }
  return folder;
}

function runner(): Conversation {
  const conversation = new Conversation([RUNNER], { PATH: "/usr/bin:/bin" });
  conversations.push(conversation);
  return conversation;
}

async function script(text: string, init: Record<string, unknown> = {}): Promise<Conversation> {
  const conversation = runner();
  const done = await conversation.init(bundle({ bootstrap: `#!/bin/sh\n${text}\n` }), init);
  assert.deepEqual(done.error, undefined);
  return conversation;
}

async function call(text: string, request: Request = {}, init: Record<string, unknown> = {}) {
  return (await script(text, init)).invoke(request);
}

/** Waits, a bounded while, until a process is gone or only its entry is left for a parent to collect. */
async function ended(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 20_000; tries++) {
    let stat: string;
    try {
      stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    } catch {
      return true;
    }
    if (/\) [ZX] /.test(stat)) return true;
    await new Promise(setImmediate);
  }
  return false;
}

test("an event goes in at stdin and JSON comes out of stdout", async () => {
  const answer = await call("cat", { body: '{"a":1}' });
  assert.equal(answer.head?.status, 200);
  assert.equal(answer.body.toString(), '{"a":1}');
  assert.ok((answer.trailer?.handlerMs ?? -1) >= 0);
});

test("text that is no JSON answers an event as a JSON string, nothing as null", async () => {
  assert.equal((await call("echo hello")).body.toString(), '"hello"');
  assert.equal((await call("true")).body.toString(), "null");
});

test("an event answer that is neither JSON nor text is a bad response", async () => {
  const answer = await call("printf '\\377\\376'");
  assert.equal(answer.error?.code, "function_bad_response");
});

test("an HTTP request comes as a function-URL event and its response object is unfolded", async () => {
  const echo = await call("cat", {
    kind: "http",
    method: "PUT",
    path: "/a/b?x=1",
    headers: [["content-type", "text/plain"]],
    body: "hi",
  });
  const event = JSON.parse(echo.body.toString());
  assert.equal(event.rawPath, "/a/b");
  assert.equal(event.requestContext.http.method, "PUT");
  assert.equal(event.body, "hi");
  const answer = await call(
    `echo '{"statusCode":404,"headers":{"x-a":"b"},"cookies":["c=d"],"body":"gone"}'`,
    { kind: "http" },
  );
  assert.equal(answer.head?.status, 404);
  assert.deepEqual(
    answer.head?.headers.find(([name]) => name === "set-cookie"),
    ["set-cookie", "c=d"],
  );
  assert.equal(answer.body.toString(), "gone");
});

test("an HTTP answer that is no JSON is streamed while the program runs", async () => {
  const conversation = await script('echo first; read -r line < "$GATE"; echo second', {
    env: { GATE: "/dev/stdin" },
  });
  const stream = conversation.open({ kind: "http", body: "" });
  conversation.send(FRAME.end, stream);
  const answer = await conversation.answer(stream);
  assert.equal(answer.head?.headers[0]?.[1], "text/plain; charset=utf-8");
  assert.equal(answer.body.toString(), "first\nsecond\n");
  const slow = await script("echo first; exec sleep 30");
  const open = slow.open({ kind: "http" });
  slow.send(FRAME.end, open);
  const data = await slow.next([FRAME.data], open);
  assert.equal(data.payload.toString(), "first\n");
  slow.send(FRAME.cancel, open);
  const error = await slow.next([FRAME.error], open);
  assert.equal(JSON.parse(error.payload.toString()).code, "function_cancelled");
});

test("large bodies pass both ways within the windows", async () => {
  const line = `${"x".repeat(1023)}\n`;
  const answer = await call("cat", { body: JSON.stringify(line.repeat(2000)) });
  assert.equal(JSON.parse(answer.body.toString()), line.repeat(2000));
  const streamed = await call("head -c 3000000 /dev/zero", { kind: "http" });
  assert.equal(streamed.body.length, 3_000_000);
  assert.equal(streamed.head?.headers[0]?.[1], "text/plain; charset=utf-8");
});

test("an answer stops at the window until it is granted more", async () => {
  const conversation = await script("head -c 1000000 /dev/zero");
  const stream = conversation.open({ kind: "http" });
  conversation.send(FRAME.end, stream);
  let bytes = 0;
  while (bytes < 262_144) bytes += (await conversation.next([FRAME.data], stream)).payload.length;
  assert.equal(bytes, 262_144);
  const grant = Buffer.alloc(4);
  grant.writeUInt32LE(10);
  conversation.send(FRAME.window, stream, grant);
  const more = await conversation.next([FRAME.data], stream);
  assert.equal(more.payload.length, 10);
});

test("stderr becomes log lines and the stack of a failure", async () => {
  const answer = await call("echo one >&2; echo '{}'; echo two >&2; exit 3", { kind: "http" });
  assert.equal(answer.log, "one\ntwo\n");
  assert.equal(answer.error?.code, "function_error");
  assert.match(answer.error?.message ?? "", /code 3/);
  assert.match(answer.error?.stack ?? "", /two/);
  assert.equal(answer.head, undefined);
});

test("a program ended by a signal is named so", async () => {
  const answer = await call("kill -SEGV $$");
  assert.match(answer.error?.message ?? "", /signal 11 \(SIGSEGV\)/);
});

test("a flood of log is cut after 1 MiB and does not hold the answer up", async () => {
  const answer = await call("yes abcdefghi | head -c 5000000 >&2; echo 1");
  assert.equal(answer.body.toString(), "1\n");
  assert.ok(answer.log.endsWith("[cloister] log truncated after 1 MiB\n"));
  assert.ok(answer.log.length < (1 << 20) + 100);
});

test("an answer to an event over 6 MiB is refused and ends the program", async () => {
  const answer = await call("exec cat /dev/zero");
  assert.equal(answer.error?.code, "function_bad_response");
});

test("a program that never reads its input still answers", async () => {
  const answer = await call("exec 0<&-; echo 7", { body: "x".repeat(1_000_000) });
  assert.equal(answer.body.toString(), "7\n");
});

test("processes a program leaves behind end with it and do not hold the answer", async () => {
  const started = await call("sleep 600 & echo $!");
  const pid = Number(started.body.toString());
  assert.ok(await ended(pid));
  const escaped = await call("setsid sleep 600 & echo $!");
  const loose = Number(escaped.body.toString());
  assert.ok(loose > 0);
  try {
    process.kill(loose, "SIGKILL");
  } catch {}
});

test("cancelling ends the program's whole group", async () => {
  const conversation = await script("sleep 600 & echo $!; wait");
  const stream = conversation.open({ kind: "http" });
  conversation.send(FRAME.end, stream);
  const data = await conversation.next([FRAME.data], stream);
  conversation.send(FRAME.cancel, stream);
  await conversation.next([FRAME.error], stream);
  assert.ok(await ended(Number(data.payload.toString())));
});

test("the environment carries the function's own variables and the invocation's", async () => {
  const answer = await call(
    'printf \'["%s","%s","%s","%s"]\' "$K" "$CLOISTER_FUNCTION_NAME" "$CLOISTER_FUNCTION_VERSION" "$CLOISTER_INVOCATION_ID"',
    {},
    { env: { K: "v" } },
  );
  assert.deepEqual(JSON.parse(answer.body.toString()), ["v", "hello", "3", "inv_1"]);
});

test("the program does not hold the socket", async () => {
  const answer = await call("ls /proc/self/fd | tr '\\n' ' '");
  assert.doesNotMatch(answer.body.toString(), /\b[4-9]\b/);
  const socket = await call("readlink /proc/$$/fd/3 || echo none");
  assert.equal(socket.body.toString(), '"none"');
});

test("several invocations at once do not mix", async () => {
  const conversation = await script("cat");
  const bodies = Array.from({ length: 16 }, (_, at) => JSON.stringify({ at }));
  const answers = await Promise.all(bodies.map((body) => conversation.invoke({ body })));
  assert.deepEqual(
    answers.map((answer) => answer.body.toString()),
    bodies,
  );
});

test("what cannot run is told at init with a remedy", async () => {
  const cases: [Record<string, string | Uint8Array>, number, string | undefined, RegExp, string][] =
    [
      [{}, 0o755, undefined, /no executable file/, "function_no_handler"],
      [
        { a: "#!/bin/sh\n", b: "#!/bin/sh\n" },
        0o755,
        undefined,
        /more than one/,
        "function_no_handler",
      ],
      [{ main: "#!/bin/sh\n" }, 0o644, undefined, /chmod \+x/, "function_init_error"],
      [{ main: "#!/none/bash -e\n" }, 0o755, undefined, /no shell/, "function_init_error"],
      [
        { main: "hello" },
        0o755,
        undefined,
        /neither an ELF program nor a script/,
        "function_init_error",
      ],
      [
        { main: new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]) },
        0o755,
        undefined,
        /x86-64/,
        "function_init_error",
      ],
      [
        { main: "#!/bin/sh\n" },
        0o755,
        "nope",
        /not in the bundle, which holds main/,
        "function_no_handler",
      ],
      [
        { main: "#!/bin/sh\n" },
        0o755,
        "../x",
        /inside the function's folder/,
        "function_init_error",
      ],
    ];
  for (const [files, mode, entry, message, code] of cases) {
    const conversation = runner();
    const done = await conversation.init(bundle(files, mode), entry ? { entry } : {});
    assert.equal(done.ok, false);
    assert.equal(done.error?.code, code);
    assert.match(done.error?.message ?? "", message);
  }
});

test("the only executable is the program when none has a default name", async () => {
  const conversation = runner();
  assert.equal((await conversation.init(bundle({ tool: "#!/bin/sh\necho 5\n" }))).ok, true);
  assert.equal((await conversation.invoke()).body.toString(), "5\n");
});

test("broken frames end the runner with a protocol error and no crash", async () => {
  const broken = [
    Buffer.from([255, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0]),
    Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]),
    Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0x77, 0, 0, 0]),
    Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 123, 123]),
    Buffer.from([1, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 1]),
  ];
  for (const bytes of broken) {
    const conversation = runner();
    await conversation.next([FRAME.ready]);
    conversation.sendRaw(bytes);
    assert.deepEqual(await conversation.exit, { code: 76, signal: null });
    assert.match(conversation.output, /protocol error/);
  }
});

test("a window overrun is a protocol error", async () => {
  const conversation = await script("sleep 30");
  const stream = conversation.open({ body: "x" });
  for (let sent = 0; sent < 8; sent++) conversation.send(FRAME.data, stream, Buffer.alloc(65_536));
  assert.deepEqual(await conversation.exit, { code: 76, signal: null });
});

test("the end of the socket ends the runner and its programs", async () => {
  const conversation = await script("echo $$; exec sleep 600");
  const stream = conversation.open({ kind: "http" });
  conversation.send(FRAME.end, stream);
  const pid = Number((await conversation.next([FRAME.data], stream)).payload.toString());
  assert.deepEqual(await conversation.close(), { code: 0, signal: null });
  assert.ok(await ended(pid));
});
