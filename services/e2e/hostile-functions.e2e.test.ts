import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, logs, problem } from "./client.ts";

/**
 * What a hostile or broken function tries. Each case must end with a clear answer for its own caller, and after each
 * one a neighbour that shares the node must still answer.
 */
let instance: Instance;

const handler = (body: string): Record<string, string> => ({
  "index.mjs": `export default { async fetch(request) { ${body} } };`,
});

async function neighbourAnswers(): Promise<void> {
  const response = await call(instance, "neighbour");
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "still here");
}

interface Case {
  title: string;
  name: string;
  files: Record<string, string>;
  config?: Record<string, unknown>;
  status: number;
  code?: string;
  /** The problem's detail must match: an error that names nothing helps nobody. */
  detail?: RegExp;
}

const CASES: Case[] = [
  {
    title: "a syntax error is an initialisation error that says so",
    name: "syntax",
    files: { "index.mjs": "export default { fetch( {" },
    status: 500,
    code: "function_init_error",
    detail: /SyntaxError|Unexpected/,
  },
  {
    title: "a module that throws while loading is an initialisation error",
    name: "throws-at-load",
    files: { "index.mjs": "throw new Error('at load'); export default {};" },
    status: 500,
    code: "function_init_error",
    detail: /at load/,
  },
  {
    title: "a handler that throws",
    name: "throws",
    files: handler("throw new TypeError('thrown on purpose');"),
    status: 500,
    code: "function_error",
    detail: /thrown on purpose/,
  },
  {
    title: "a handler that rejects with no Error",
    name: "rejects",
    files: handler("return Promise.reject('a string');"),
    status: 500,
    code: "function_error",
    detail: /a string/,
  },
  {
    title: "a handler that never answers",
    name: "never",
    files: handler("return new Promise(() => setInterval(() => {}, 1000));"),
    config: { timeoutMs: 700 },
    status: 504,
    code: "function_timeout",
  },
  {
    title: "a busy loop past its timeout",
    name: "busy",
    files: handler("for (;;);"),
    config: { timeoutMs: 700 },
    status: 504,
    code: "function_timeout",
  },
  {
    title: "a handler that exits the process",
    name: "exits",
    files: handler("process.exit(0);"),
    status: 502,
    code: "function_exited",
  },
  {
    title: "a handler that kills its own process",
    name: "kills",
    files: handler("process.kill(process.pid, 'SIGKILL'); return new Promise(() => {});"),
    status: 502,
    code: "function_exited",
  },
  {
    title: "a result that JSON cannot hold",
    name: "bigint",
    files: { "index.mjs": "export const handler = async () => ({ value: 10n });" },
    status: 502,
    code: "function_bad_response",
  },
  {
    title: "a fetch handler that returns no Response",
    name: "no-response",
    files: handler("return 42;"),
    status: 502,
    code: "function_bad_response",
  },
  {
    title: "a module that exports nothing to call",
    name: "no-handler",
    files: { "index.mjs": "export const nothing = 1;" },
    status: 500,
    code: "function_no_handler",
  },
  {
    title: "a memory bomb",
    name: "memory-bomb",
    files: handler("const keep = []; for (;;) keep.push(Buffer.alloc(8 << 20, 1));"),
    config: { memoryMb: 128 },
    status: 500,
    code: "function_out_of_memory",
    detail: /128 MiB/,
  },
  {
    title: "a memory bomb in Python",
    name: "memory-bomb-python",
    files: {
      "main.py":
        "def handler(event, context):\n  keep = []\n  while True:\n    keep.append(b'x' * (1 << 20))\n",
    },
    config: { runtime: "python3", memoryMb: 128 },
    status: 500,
    code: "function_out_of_memory",
    detail: /128 MiB/,
  },
  {
    title: "more memory at once than there may be, in Python",
    name: "memory-whole-python",
    files: { "main.py": "def handler(event, context):\n  return len(b'x' * (512 << 20))\n" },
    config: { runtime: "python3", memoryMb: 128 },
    status: 500,
    code: "function_out_of_memory",
    detail: /128 MiB/,
  },
  {
    title: "more memory at once than there may be",
    name: "memory-whole",
    files: handler("return new Response(String(Buffer.alloc(512 << 20, 1).length));"),
    config: { memoryMb: 128 },
    status: 500,
    code: "function_out_of_memory",
    detail: /128 MiB/,
  },
  {
    title: "memory that is used up while the module is loaded",
    name: "memory-at-load",
    files: { "index.mjs": "globalThis.kept = Buffer.alloc(512 << 20, 1); export default {};" },
    config: { memoryMb: 128 },
    status: 500,
    code: "function_out_of_memory",
    detail: /128 MiB/,
  },
  {
    title: "a JavaScript heap that grows without end",
    name: "heap-bomb",
    files: handler("const keep = []; for (;;) keep.push({ a: keep.length, b: [1, 2, 3] });"),
    config: { memoryMb: 128, timeoutMs: 30_000 },
    status: 500,
    code: "function_out_of_memory",
  },
];

describe("hostile functions", { timeout: 300_000 }, () => {
  before(async () => {
    instance = await startInstance();
    await deploy(instance, {
      name: "neighbour",
      files: handler("return new Response('still here');"),
    });
    await neighbourAnswers();
  });
  after(async () => {
    await instance?.stop();
  });

  for (const [item, isolation] of CASES.flatMap((item) =>
    (["container", "microvm"] as const).map((isolation) => [item, isolation] as const),
  )) {
    test(`${isolation}: ${item.title}`, async () => {
      const name = `${item.name}-${isolation}`;
      await deploy(instance, { name, isolation, files: item.files, ...item.config });
      const answer = await problem(await call(instance, name));
      assert.equal(answer.code, item.code, JSON.stringify(answer));
      assert.equal(answer.status, item.status);
      assert.ok(answer.remedy, "every error has a remedy");
      if (item.detail) assert.match(answer.detail ?? "", item.detail);
      await neighbourAnswers();
    });
  }

  test("a callback called twice answers once", async () => {
    await deploy(instance, {
      name: "twice",
      files: {
        "index.mjs":
          "export const handler = (event, context, callback) => { callback(null, 'first'); callback(null, 'second'); };",
      },
    });
    for (let i = 0; i < 3; i++) {
      const response = await call(instance, "twice");
      assert.equal(response.status, 200);
      assert.match(await response.text(), /first/);
    }
  });

  test("100 MB of prints are cut, and the answer still comes", async () => {
    await deploy(instance, {
      name: "prints",
      files: handler(
        "const line = 'x'.repeat(1 << 20); for (let i = 0; i < 100; i++) console.log(line); return new Response('done');",
      ),
      timeoutMs: 30_000,
    });
    const response = await call(instance, "prints");
    assert.equal(response.status, 200);
    assert.equal(await response.text(), "done");
    await neighbourAnswers();
    const stored = await waitFor(async () => {
      const lines = await logs(instance, "prints");
      return lines.some((line) => /truncated/.test(line.text)) ? lines : undefined;
    });
    const bytes = stored.reduce((sum, line) => sum + line.text.length, 0);
    assert.ok(bytes <= 2 << 20, `kept ${bytes} bytes`);
  });

  test("a 1 GB answer flows through, and a neighbour is served meanwhile", async () => {
    await deploy(instance, {
      name: "gigabyte",
      files: handler(
        `const chunk = new Uint8Array(1 << 20); let left = 1024;
         return new Response(new ReadableStream({ pull(c) { if (left-- > 0) c.enqueue(chunk.slice()); else c.close(); } }));`,
      ),
      timeoutMs: 120_000,
    });
    const response = await call(instance, "gigabyte", "/", {
      signal: AbortSignal.timeout(120_000),
    });
    assert.equal(response.status, 200);
    let bytes = 0;
    let asked = false;
    for await (const chunk of response.body ?? []) {
      bytes += chunk.length;
      if (!asked && bytes > 100 << 20) {
        asked = true;
        await neighbourAnswers();
      }
    }
    assert.equal(bytes, 1 << 30);
  });

  test("a fork bomb stops at the process limit and leaves nothing running", async () => {
    await deploy(instance, {
      name: "fork-bomb",
      files: {
        "index.mjs": `import { spawn } from "node:child_process";
          export default { async fetch() {
            let started = 0; let refused = "";
            const again = "const {spawn}=require('child_process');for(let i=0;i<50;i++)try{spawn(process.execPath,['-e',process.argv[1],process.argv[1]]).on('error',()=>{})}catch{};setInterval(()=>{},1000)";
            for (let i = 0; i < 300; i++) {
              const child = spawn(process.execPath, ["-e", again, again], { stdio: "ignore" });
              child.on("error", (error) => { refused = error.code; });
              if (child.pid) started++;
            }
            await new Promise((resolve) => setTimeout(resolve, 500));
            return Response.json({ started, refused });
          } };`,
      },
      reuse: "fresh",
      timeoutMs: 20_000,
    });
    const response = await call(instance, "fork-bomb");
    const text = await response.text();
    assert.ok([200, 500, 502, 504].includes(response.status), text);
    if (response.status === 200) assert.match(text, /EAGAIN/);
    await neighbourAnswers();
  });

  test("a full /tmp is ENOSPC inside and nothing outside", async () => {
    await deploy(instance, {
      name: "full-tmp",
      files: {
        "index.mjs": `import { writeFileSync, appendFileSync } from "node:fs";
          export default { async fetch() {
            const chunk = Buffer.alloc(1 << 20);
            writeFileSync("/tmp/fill", "");
            try { for (let i = 0; i < 8192; i++) appendFileSync("/tmp/fill", chunk); return new Response("no end"); }
            catch (error) { return new Response(error.code); }
          } };`,
      },
    });
    const response = await call(instance, "full-tmp");
    const text = await response.text();
    // tmpfs pages count as the sandbox's memory: whichever limit is met first must be named.
    assert.ok(text === "ENOSPC" || /function_out_of_memory/.test(text), text);
    await neighbourAnswers();
  });

  test("file descriptors run out inside only", async () => {
    await deploy(instance, {
      name: "fds",
      files: {
        "index.mjs": `import { openSync } from "node:fs";
          export default { async fetch() {
            let n = 0;
            try { for (; n < 100000; n++) openSync("/dev/null"); return new Response("no end"); }
            catch (error) { return Response.json({ code: error.code, n }); }
          } };`,
      },
    });
    const response = await call(instance, "fds");
    const body = (await response.json()) as { code: string; n: number };
    assert.equal(body.code, "EMFILE");
    assert.ok(body.n < 70_000);
    await neighbourAnswers();
  });

  test("bytes that are no frames on fd 3 end the sandbox, not the worker", async () => {
    await deploy(instance, {
      name: "garbage",
      files: {
        "index.mjs": `import { writeSync } from "node:fs";
          export default { async fetch() { writeSync(3, Buffer.alloc(4096, 0xff)); return new Promise(() => {}); } };`,
      },
      timeoutMs: 10_000,
    });
    const answer = await problem(await call(instance, "garbage"));
    assert.ok(answer.status >= 500, JSON.stringify(answer));
    assert.ok(answer.code);
    await neighbourAnswers();
  });
});

/** Repeats `probe` until it gives something, at most 10 s: logs are stored in batches off the hot path. */
async function waitFor<T>(probe: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 10_000;
  for (;;) {
    const value = await probe();
    if (value !== undefined) return value;
    assert.ok(Date.now() < end, "gave up after 10 s");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
