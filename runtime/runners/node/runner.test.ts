import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, describe, test } from "node:test";
import { FRAME } from "#protocol/frames";
import { type RunnerProcess, within } from "#testkit/runner-process";
import { Functions, MAJORS } from "./functions.ts";

const json = (body: Buffer): unknown => JSON.parse(body.toString());
const NEVER = "new Promise(() => setInterval(() => {}, 1000))";

/** Sends an event whose answer is not waited for; gives the first it prints. */
function listen(runner: RunnerProcess): Promise<string> {
  const log = Promise.withResolvers<string>();
  const stream = runner.open({ kind: "event" }, true, {
    onLog: (_fd, text) => log.resolve(text.toString()),
    onHead() {},
    onData() {},
    onEnd() {},
    onError() {},
    onDown() {},
  });
  stream.sendData(Buffer.from("1"));
  stream.endBody();
  return log.promise;
}

for (const major of MAJORS)
  describe(`node ${major}: loading, output and ending`, () => {
    const functions = new Functions(major);
    afterEach(() => functions.closeRunners());
    after(() => functions.remove());

    test("READY tells the version, and a fetch handler answers", async () => {
      const runner = functions.spawn();
      const ready = await runner.ready;
      assert.equal(ready.runner, "node");
      assert.match(String(ready.version), new RegExp(`^${major}\\.`));
      const done = await runner.init(
        functions.folder("export default { fetch: () => new Response('hi') };"),
      );
      assert.equal(done.ok, true);
      const answer = await runner.invoke();
      assert.equal(answer.status, 200);
      assert.equal(answer.body.toString(), "hi");
      assert.deepEqual(answer.headers, [["content-type", "text/plain;charset=UTF-8"]]);
      assert.equal(typeof answer.trailer?.handlerMs, "number");
    });

    test("INIT before READY is a cold start: READY and the answer come", async () => {
      const runner = functions.spawn();
      const done = await runner.initEarly(
        functions.folder("export default { fetch: () => Response.json({ a: 1 }) };"),
      );
      assert.equal(done.ok, true);
      assert.equal((await runner.ready).runner, "node");
      assert.deepEqual(json((await runner.invoke()).body), { a: 1 });
    });

    test("what a prepared runner ran before its function leaves nothing that the function or the log shows", async () => {
      const root = functions.folder(`export const handler = async () => ({
        globals: Object.getOwnPropertyNames(globalThis).sort(),
        env: process.env,
        argv: process.argv,
        directory: process.cwd(),
        listeners: process.eventNames().map((name) => [String(name), process.listenerCount(name)]),
        timers: process.getActiveResourcesInfo().filter((name) => name === "Timeout"),
      });`);
      const facts = async (runner: RunnerProcess): Promise<unknown> => {
        const answer = await runner.invoke({ kind: "event", body: "null" });
        assert.equal(answer.log + runner.outsideLog + runner.output, "");
        return json(answer.body);
      };
      const cold = functions.spawn();
      assert.equal((await cold.initEarly(root)).ok, true);
      const prepared = functions.spawn();
      assert.equal((await prepared.init(root)).ok, true);
      assert.deepEqual(await facts(prepared), await facts(cold));
    });

    const FETCH = "fetch(request) { return new Response('ok ' + new URL(request.url).pathname); }";
    const shapes: [string, Record<string, string>][] = [
      ["default object", { "index.mjs": `export default { ${FETCH} };` }],
      [
        "named fetch",
        { "index.js": `export async function ${FETCH}`, "package.json": '{"type":"module"}' },
      ],
      ["default function", { "main.mjs": `export default function ${FETCH}` }],
      [
        "default arrow",
        {
          "index.mjs": "export default async (r) => new Response('ok ' + new URL(r.url).pathname);",
        },
      ],
      [
        "a class instance",
        {
          "index.mjs": `class A { p = 'ok '; fetch(r) { return new Response(this.p + new URL(r.url).pathname); } } export default new A();`,
        },
      ],
      ["module.exports = { fetch }", { "index.cjs": `module.exports = { ${FETCH} };` }],
      ["exports.fetch in .js", { "index.js": `exports.fetch = async function ${FETCH};` }],
      [
        "transpiled default",
        {
          "index.js": `Object.defineProperty(exports, '__esModule', { value: true }); exports.default = { ${FETCH} };`,
        },
      ],
      [
        "package.json main",
        {
          "package.json": '{"main":"lib/x.cjs"}',
          "lib/x.cjs": `module.exports = { ${FETCH} };`,
          "index.mjs": "throw 1",
        },
      ],
      [
        "package.json exports",
        {
          "package.json": '{"type":"module","exports":{".":{"import":"./a/b.js"}}}',
          "a/b.js": `export default { ${FETCH} };`,
        },
      ],
      [
        "the only source file",
        { "whatever.mjs": `export default { ${FETCH} };`, "README.md": "x" },
      ],
      [
        "a dependency in the folder",
        {
          "index.mjs": `import { word } from 'dep'; export default { fetch: (r) => new Response(word + new URL(r.url).pathname) };`,
          "node_modules/dep/package.json": '{"name":"dep","main":"d.js"}',
          "node_modules/dep/d.js": "exports.word = 'ok ';",
        },
      ],
    ];
    for (const [title, files] of shapes)
      test(`loads ${title}`, async () => {
        const runner = await functions.serve(files);
        assert.equal((await runner.invoke({ path: "/p?q" })).body.toString(), "ok /p");
      });

    test("entry names the file, and only one inside the folder", async () => {
      const files = { "index.mjs": "throw 1", "other/f.mjs": `export default { ${FETCH} };` };
      const runner = await functions.serve(files, { entry: "other/f.mjs" });
      assert.equal((await runner.invoke()).body.toString(), "ok /");
      for (const entry of ["../x.mjs", "/etc/passwd", "missing.mjs", "other"]) {
        const error = await functions.loadError(files, { entry });
        assert.equal(error.code, "function_init_error");
        assert.match(String(error.message), /entry/);
      }
    });

    test(major === 20 ? "TypeScript is refused with the remedy" : "loads TypeScript", async () => {
      const files = {
        "index.ts":
          "interface A { b: string }\nconst a: A = { b: 'typed' };\nexport default { fetch: (_r: Request): Response => new Response(a.b) };",
      };
      if (major === 20) {
        const error = await functions.loadError(files);
        assert.equal(error.code, "function_init_error");
        assert.match(String(error.message), /Use runtime node22/);
        return;
      }
      const runner = await functions.serve(files);
      const answer = await runner.invoke();
      assert.equal(answer.body.toString(), "typed");
      assert.equal(runner.outsideLog + answer.log + runner.output, "", "no warning of Node");
    });

    const broken: [string, string, string, RegExp][] = [
      ["a syntax error", "export default { fetch( {", "function_init_error", /Unexpected/],
      [
        "a throw while loading",
        "throw new RangeError('at load')",
        "function_init_error",
        /at load/,
      ],
      [
        "a rejection while loading",
        "await Promise.reject(new Error('awaited'))",
        "function_init_error",
        /awaited/,
      ],
      [
        "a missing dependency",
        "import 'no-such-package-here'; export default {};",
        "function_init_error",
        /no-such-package-here/,
      ],
      [
        "nothing exported",
        "export const nothing = 1;",
        "function_no_handler",
        /exports nothing to call/,
      ],
      ["null exported", "export default null;", "function_no_handler", /exports nothing to call/],
    ];
    for (const [title, source, code, message] of broken)
      test(`${title} fails INIT, and every call after it`, async () => {
        const runner = functions.spawn();
        const done = await runner.init(functions.folder(source));
        const error = done.error as Record<string, string>;
        assert.equal(done.ok, false);
        assert.equal(error.code, code);
        assert.match(String(error.message), message);
        const answer = await runner.invoke();
        assert.deepEqual(answer.error, error);
      });

    test("a module that throws later while it loads fails INIT", async () => {
      const error = await functions.loadError(
        `setTimeout(() => { throw new Error('in a timer') }, 1); await ${NEVER}; export default {};`,
      );
      assert.equal(error.code, "function_init_error");
      assert.match(String(error.message), /in a timer/);
    });

    test("an empty folder says what is looked for", async () => {
      const error = await functions.loadError({ "README.md": "" });
      assert.match(String(error.message), /Set entry in cloister.json/);
    });

    test("after a restore the process id is the new one and Math.random gives numbers of its own", async () => {
      const runner = functions.spawn();
      await runner.init(
        functions.folder(`const { random } = Math;
          export const handler = () => ({ pid: process.pid, drawn: Array.from({ length: 2000 }, random) });`),
      );
      const draw = async () => {
        const { body } = await runner.invoke({ kind: "event", body: "{}" });
        return json(body) as { pid: number; drawn: number[] };
      };
      const before = await draw();
      const seed = Buffer.alloc(32, 7).toString("base64");
      runner.link.connection.sendJson(FRAME.RESTORED, 0, { seed, nowMs: 0, pid: 4711 });
      const after = await draw();
      assert.equal(after.pid, 4711);
      assert.ok(after.drawn.every((number) => number >= 0 && number < 1));
      assert.equal(new Set([...before.drawn, ...after.drawn]).size, 4000);
      // Ten times the deviation that the mean of 2,000 fair draws has.
      const mean = after.drawn.reduce((sum, number) => sum + number, 0) / 2000;
      assert.ok(Math.abs(mean - 0.5) < 0.065, String(mean));
    });

    test("env is set before the module loads, and given to fetch", async () => {
      const runner = await functions.serve(
        "const k = process.env.K; export default { fetch: (r, env) => Response.json([k, env.K, process.env.CLOISTER_FUNCTION_NAME, process.cwd()]) };",
        { env: { K: "v" } },
      );
      const [k, fromEnv, name, cwd] = json((await runner.invoke()).body) as string[];
      assert.deepEqual([k, fromEnv, name], ["v", "v", "hello"]);
      assert.match(String(cwd), /cloister-node-runner/);
    });

    test("a function sees nothing of what only libc is to read, unless it sets that itself", async () => {
      const names = "export const handler = () => Object.entries(process.env).sort();";
      for (const [env, seen] of [
        [{}, []],
        [{ MALLOC_ARENA_MAX: "4" }, [["MALLOC_ARENA_MAX", "4"]]],
      ] as const) {
        const runner = functions.spawn({ MALLOC_ARENA_MAX: "1" });
        await runner.init(functions.folder(names), { env });
        const { body } = await runner.invoke({ kind: "event", body: "{}" });
        assert.deepEqual(json(body), [
          ["CLOISTER_FUNCTION_NAME", "hello"],
          ["CLOISTER_FUNCTION_VERSION", "3"],
          ["HOME", "/tmp"],
          ...seen,
          ["PATH", "/usr/bin:/bin"],
          ["TZ", "UTC"],
        ]);
      }
    });

    test("output becomes the log of the invocation that wrote it, also when they overlap", async () => {
      const runner = await functions.serve(`
        console.log('while loading');
        export const handler = async (event) => {
          console.log('start', event.n);
          await new Promise((resolve) => setTimeout(resolve, event.n % 2 ? 20 : 5));
          process.stdout.write('out ' + event.n); console.error('err %d', event.n);
          process.stderr.write(new TextEncoder().encode('é' + event.n));
          return event.n;
        };`);
      assert.equal(runner.outsideLog, "while loading\n");
      const numbers = [1, 2, 3, 4, 5, 6];
      const answers = await Promise.all(
        numbers.map((n) => runner.invoke({ kind: "event", body: JSON.stringify({ n }) })),
      );
      for (const [index, answer] of answers.entries()) {
        const n = numbers[index];
        assert.equal(answer.log, `start ${n}\nerr ${n}\nout ${n}\né${n}\n`);
        assert.deepEqual(json(answer.body), n);
      }
      assert.equal(runner.output, "");
    });

    test("closing stdout harms nothing", async () => {
      const runner = await functions.serve(
        "export const handler = async () => { process.stdout.end('bye'); process.stdout.destroy(); process.stderr.destroy(); console.log('still'); return 1; };",
      );
      for (let i = 0; i < 2; i++)
        assert.equal((await runner.invoke({ kind: "event", body: "1" })).log, "byestill\n");
    });

    test("100 MB of prints are cut at 1 MiB, line by line and in one piece", async () => {
      for (const source of [
        "const line = 'x'.repeat(1 << 20); for (let i = 0; i < 100; i++) console.log(line);",
        "const line = 'ü'.repeat(1000); for (let i = 0; i < 50000; i++) console.log(line);",
        "process.stdout.write('y'.repeat(100 << 20));",
      ]) {
        const runner = await functions.serve(
          `export const handler = async () => { ${source} return 'done'; };`,
        );
        const answer = await runner.invoke({ kind: "event", body: "null" });
        assert.deepEqual(json(answer.body), "done");
        assert.match(answer.log, /\n\[cloister\] log truncated after 1 MiB\n$/);
        assert.equal(answer.log.match(/truncated/g)?.length, 1);
        assert.ok(Buffer.byteLength(answer.log) <= (1 << 20) + 64, `${answer.log.length}`);
        assert.ok(!answer.log.includes("\ufffd"), "cut between characters");
        await functions.closeRunners();
      }
    });

    test("what was printed before a busy loop has left", async () => {
      const runner = await functions.serve(
        "export const handler = async () => { console.log('before the loop'); for (;;); };",
      );
      assert.equal(await within(listen(runner), "a log"), "before the loop\n");
      runner.child.kill("SIGKILL");
    });

    for (const [title, source] of [
      [
        "an exception in a timer",
        "setTimeout(() => { throw new TypeError('uncaught here'); }, 1);",
      ],
      ["a rejection nobody handles", "Promise.reject(new TypeError('uncaught here'));"],
    ] as const)
      test(`${title} fails every open stream and ends the runner with 70`, async () => {
        const runner = await functions.serve(
          `export const handler = async (event) => { if (event === 2) { ${source} } await ${NEVER}; };`,
        );
        const answers = await Promise.all(
          [1, 2].map((n) => runner.invoke({ kind: "event", body: String(n) })),
        );
        for (const { error } of answers) {
          assert.equal(error?.code, "function_error");
          assert.equal(error?.type, "TypeError");
          assert.match(String(error?.message), /uncaught here/);
          assert.equal(error?.exiting, true);
        }
        assert.deepEqual(await within(runner.exit, "exit"), { code: 70, signal: null });
        assert.match(runner.outsideLog, /Uncaught TypeError: uncaught here/);
      });

    test("a function that handles uncaughtException itself goes on", async () => {
      const runner = await functions.serve(
        "process.on('uncaughtException', () => {}); export const handler = async () => { setTimeout(() => { throw 1; }, 1); await new Promise((r) => setTimeout(r, 20)); return 'alive'; };",
      );
      const answer = await runner.invoke({ kind: "event", body: "1" });
      assert.equal(answer.body.toString(), '"alive"');
    });

    test("process.exit ends the process with its code, and unfinished lines are kept", async () => {
      const runner = await functions.serve(
        "export const handler = async () => { process.stdout.write('last words'); process.exit(3); };",
      );
      const log = listen(runner);
      assert.deepEqual(await within(runner.exit, "exit"), { code: 3, signal: null });
      assert.equal(await within(log, "a log"), "last words\n");
    });

    test("end of file on the socket ends the runner at once, with user code running", async () => {
      const runner = await functions.serve(
        `setInterval(() => {}, 1000); export const handler = async () => ${NEVER};`,
      );
      runner.invoke({ kind: "event", body: "1" }).catch(() => {});
      assert.deepEqual(await runner.close(), { code: 0, signal: null });
    });

    test("a child process holds neither the socket nor what goes through it", async () => {
      const runner = await functions.serve(`
        import { execFileSync } from 'node:child_process';
        import { readlinkSync } from 'node:fs';
        export const handler = async () => ({
          own: readlinkSync('/proc/self/fd/3'),
          child: execFileSync(process.execPath, ['-e', 'const fs=require("fs");console.log(JSON.stringify(fs.readdirSync("/proc/self/fd").map(f=>{try{return fs.readlinkSync("/proc/self/fd/"+f)}catch{return ""}})))']).toString(),
        });`);
      const { own, child } = json(
        (await runner.invoke({ kind: "event", body: "1" })).body,
      ) as Record<string, string>;
      assert.match(String(own), /^socket:/);
      assert.ok(!JSON.parse(String(child)).includes(own), String(child));
    });

    for (const [title, frames] of [
      ["an unknown type", [[0x7f, 0, "{}"]]],
      ["INVOKE before INIT", [[FRAME.INVOKE, 1, "{}"]]],
      ["a runner's own frame", [[FRAME.READY, 0, "{}"]]],
      ["INIT that is no JSON", [[FRAME.INIT, 0, "nonsense"]]],
      ["INIT without root", [[FRAME.INIT, 0, '{"function":"f","version":1}']]],
      ["INIT on a stream", [[FRAME.INIT, 1, '{"function":"f","version":1,"root":"/"}']]],
      ["DATA for a stream never opened", [[FRAME.DATA, 9, "x"]]],
    ] as [string, [number, number, string][]][])
      test(`${title} is a protocol error that ends the runner`, async () => {
        const runner = functions.spawn();
        await runner.ready;
        for (const [type, stream, text] of frames)
          runner.link.connection.send(type, stream, Buffer.from(text));
        assert.deepEqual(await within(runner.exit, "exit"), { code: 76, signal: null });
        if (!runner.output) await once(runner.child, "close");
        assert.match(runner.output, /protocol error: /);
      });

    test("without a socket the runner says who starts it", async () => {
      const runner = functions.spawn({ CLOISTER_FD: "77" });
      assert.deepEqual(await within(runner.exit, "exit"), { code: 64, signal: null });
      await assert.rejects(runner.ready);
    });
  });
