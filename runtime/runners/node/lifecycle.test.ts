import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { Conversation, FRAME } from "../conversation.ts";
import { MAJORS } from "./functions.ts";

const ROOT = join(import.meta.dirname, "../../..");
const RUNNER = join(import.meta.dirname, "runner.mjs");
const SEED = Buffer.alloc(32, 7).toString("base64");

for (const major of MAJORS)
  describe(`node ${major}: ready to be frozen, and restored`, () => {
    const folder = mkdtempSync(join(tmpdir(), "cloister-lifecycle-"));
    const runners: Conversation[] = [];
    let functions = 0;
    after(async () => {
      for (const runner of runners) await runner.close();
      rmSync(folder, { recursive: true });
    });

    /** A runner that was told to make itself ready for a snapshot, and its INIT_DONE. */
    async function settled(source: string, warmTurns = 8) {
      const root = mkdtempSync(join(folder, `f${functions++}-`));
      writeFileSync(join(root, "index.mjs"), source);
      const node = join(ROOT, "node_modules", `node-${major}`, "bin/node");
      const runner = new Conversation([node, "--disable-warning=ExperimentalWarning", RUNNER]);
      runners.push(runner);
      return { runner, done: await runner.init(root, { snapshot: { warmTurns } }) };
    }

    const restore = (runner: Conversation, pid = 4711) =>
      runner.send(FRAME.restored, 0, { seed: SEED, nowMs: Date.now(), pid });
    const ready = async (runner: Conversation) =>
      JSON.parse((await runner.next([FRAME.ready], 0)).payload.toString());

    test("hooks run in their order, and the handler by itself never", async () => {
      const { runner, done } = await settled(`
        const seen = ["loaded"];
        export const lifecycle = {
          async warmUp() { seen.push("warmUp"); },
          beforeSnapshot() { seen.push("beforeSnapshot"); },
          async afterRestore() { await null; seen.push("afterRestore", process.pid); },
        };
        export const handler = async () => { seen.push("call"); return seen; };
      `);
      assert.equal(done.ok, true, JSON.stringify(done));
      restore(runner);
      // Sent before READY has come: no time is lost, and the hook still comes first.
      const { body } = await runner.invoke({ kind: "event", body: "{}" });
      const seen = ["loaded", "warmUp", "beforeSnapshot", "afterRestore", 4711, "call"];
      assert.deepEqual(JSON.parse(body.toString()), seen);
      assert.equal(typeof (await ready(runner)).renewMs, "number");
    });

    test("turns of the runner's own code before READY: no handler, and numbers of its own", async () => {
      const drawn = new Set<number>();
      for (const [fill, hook] of [
        [1, ""],
        [2, ""],
        [3, "export const lifecycle = { afterRestore() { seen.push('afterRestore'); } };"],
      ] as const) {
        const { runner, done } = await settled(`
          const seen = [];
          ${hook}
          export const handler = async () => { seen.push("call"); return { seen, drawn: Math.random() }; };
        `);
        assert.equal(done.ok, true, JSON.stringify(done));
        const seed = Buffer.alloc(32, fill).toString("base64");
        runner.send(FRAME.restored, 0, { seed, nowMs: Date.now(), pid: 4711, warmTurns: 3 });
        const { body } = await runner.invoke({ kind: "event", body: "{}" });
        const answer = JSON.parse(body.toString());
        assert.deepEqual(answer.seen, hook ? ["afterRestore", "call"] : ["call"]);
        assert.equal(typeof (await ready(runner)).renewMs, "number");
        drawn.add(answer.drawn);
      }
      assert.equal(drawn.size, 3);
    });

    test("hooks of a default export, with fetch", async () => {
      const { runner, done } = await settled(`
        export default {
          restores: 0,
          lifecycle: { text: "this", afterRestore() { globalThis.told = this.text; } },
          fetch: () => new Response(globalThis.told),
        };
      `);
      assert.equal(done.ok, true, JSON.stringify(done));
      restore(runner);
      const { body } = await runner.invoke({ kind: "http", method: "GET" });
      assert.equal(body.toString(), "this");
    });

    test("READY leaves before code of the function runs", async () => {
      const { runner } = await settled(
        "export const handler = async () => { process.kill(process.pid, 'SIGKILL'); };",
      );
      restore(runner, runner.child.pid ?? 0);
      const stream = runner.open({ kind: "event", body: "{}" });
      runner.send(FRAME.data, stream, Buffer.from("{}"));
      runner.send(FRAME.end, stream);
      await ready(runner);
      assert.equal((await runner.exit).signal, "SIGKILL");
    });

    for (const [hook, more] of [
      ["beforeSnapshot", "throw new RangeError('no')"],
      ["warmUp", "return Promise.reject(new RangeError('no'))"],
    ] as const)
      test(`a failing ${hook} fails INIT by name`, async () => {
        const { done } = await settled(
          `export const lifecycle = { ${hook}() { ${more}; } }; export const handler = async () => 1;`,
        );
        assert.equal(done.ok, false);
        assert.equal(done.error?.type, "RangeError");
        assert.equal(done.error?.message, `lifecycle.${hook}: no`);
        assert.equal(done.error?.code, "function_init_error");
      });

    test("a hook that is no function is named", async () => {
      const { done } = await settled(
        "export const lifecycle = { warmUp: 3 }; export const handler = async () => 1;",
      );
      assert.match(done.error?.message ?? "", /lifecycle\.warmUp is 3/);
    });

    test("a failing afterRestore fails the calls of that start, and no call is served", async () => {
      const { runner, done } = await settled(`
        export const lifecycle = { async afterRestore() { throw new Error("no key"); } };
        export default { fetch: () => new Response("served") };
      `);
      assert.equal(done.ok, true);
      restore(runner);
      for (let call = 0; call < 2; call++) {
        const { error } = await runner.invoke({ kind: "http", method: "GET" });
        assert.equal(error?.code, "function_init_error");
        assert.equal(error?.message, "lifecycle.afterRestore: no key");
      }
      const again = JSON.parse((await runner.next([FRAME.initDone], 0)).payload.toString());
      assert.equal(again.ok, false);
      assert.equal(again.error.code, "function_init_error");
    });

    test("without turns and without hooks it is ready all the same, and user code sees no collector", async () => {
      const { runner, done } = await settled(
        "export const handler = async () => [typeof gc, typeof globalThis.gc];",
        0,
      );
      assert.equal(done.ok, true);
      restore(runner);
      const { body } = await runner.invoke({ kind: "event", body: "{}" });
      assert.deepEqual(JSON.parse(body.toString()), ["undefined", "undefined"]);
    });
  });
