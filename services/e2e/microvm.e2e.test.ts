import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, problem, recordOf } from "./client.ts";

/** What only the micro-VM path can get wrong. */
describe("micro-VMs", { timeout: 180_000 }, () => {
  let instance: Instance;
  before(async () => {
    instance = await startInstance();
  });
  after(() => instance?.stop());

  const vm = (name: string, more: Record<string, unknown> & { files: Record<string, string> }) =>
    deploy(instance, { name, isolation: "microvm", ...more });

  test("a Python function answers again and again: no waiter of its socket loses its wake", async () => {
    await vm("again", {
      runtime: "python3",
      files: { "main.py": "def handler(event, context):\n  print('called')\n  return 'ok'\n" },
    });
    for (let n = 0; n < 150; n++) {
      const response = await call(instance, "again");
      assert.equal(response.status, 200, `call ${n}: ${await response.clone().text()}`);
      assert.equal(response.headers.get("cloister-isolation"), "microvm");
      await response.arrayBuffer();
    }
  });

  test("asyncio, which wakes itself by a socket pair", async () => {
    await vm("loop", {
      runtime: "python3",
      files: {
        "main.py": `
import asyncio
async def handler(event, context):
    loop = asyncio.get_running_loop()
    from_thread = await loop.run_in_executor(None, lambda: "thread")
    await asyncio.sleep(0.01)
    return from_thread
`,
      },
    });
    const response = await call(instance, "loop");
    assert.equal(await response.text(), "thread");
  });

  test("threads, WebAssembly, zlib, crypto and files of Node", async () => {
    await vm("node-parts", {
      files: {
        "index.mjs": `
import { Worker } from "node:worker_threads";
import { gzipSync, gunzipSync } from "node:zlib";
import { createHash, pbkdf2 } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
const wasm = Uint8Array.of(0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,7,1,3,97,100,100,0,0,10,9,1,7,0,32,0,32,1,106,11);
export default { async fetch() {
  const worker = new Worker("require('node:worker_threads').parentPort.postMessage(6*7)", { eval: true });
  const fromWorker = await new Promise((resolve) => worker.once("message", resolve));
  const { instance } = await WebAssembly.instantiate(wasm);
  await writeFile("/tmp/a", "text");
  return Response.json({
    fromWorker, added: instance.exports.add(20, 22),
    zipped: gunzipSync(gzipSync("zip")).toString(),
    hash: createHash("sha256").update("x").digest("hex").slice(0, 8),
    derived: (await promisify(pbkdf2)("p", "s", 10, 4, "sha256")).length,
    file: await readFile("/tmp/a", "utf8"),
  });
} };`,
      },
    });
    const response = await call(instance, "node-parts");
    assert.deepEqual(await response.json(), {
      fromWorker: 42,
      added: 42,
      zipped: "zip",
      hash: "2d711642",
      derived: 4,
      file: "text",
    });
  });

  test("reuse: fresh gives each call a machine of its own", async () => {
    await vm("fresh", {
      reuse: "fresh",
      files: {
        "index.mjs":
          "let calls = 0; export default { fetch: () => new Response(String(++calls)) };",
      },
    });
    for (let n = 0; n < 3; n++) assert.equal(await (await call(instance, "fresh")).text(), "1");
  });

  test("micro-VMs are brought back from a snapshot of the booted runner, and none draws what another drew", async () => {
    for (const [name, runtime, files] of [
      [
        "drawn-by-node",
        "node24",
        {
          "index.mjs": `import { randomUUID } from "node:crypto";
            export default { fetch: () => Response.json([process.pid, Math.random(), randomUUID()]) };`,
        },
      ],
      [
        "drawn-by-python",
        "python3",
        {
          "main.py": `import os, random, uuid
def handler(event, context):
    return [os.getpid(), random.random(), str(uuid.uuid4())]
`,
        },
      ],
    ] as const) {
      await vm(name, { runtime, files, reuse: "fresh", memoryMb: 192 });
      const drawn = new Set<string>();
      let restored = 0;
      // The first ones boot; the snapshot is made meanwhile. Later ones get a sandbox that is put back to it.
      for (let calls = 0; calls < 60 && restored < 5; calls++) {
        const response = await call(instance, name);
        assert.equal(response.status, 200, await response.clone().text());
        const start = response.headers.get("cloister-start");
        const answer = await response.text();
        if (start !== "restored" && start !== "reset") continue;
        restored++;
        const [pid, ...numbers] = JSON.parse(answer) as [number, ...unknown[]];
        assert.ok(pid > 1, answer);
        for (const number of numbers) drawn.add(`${number}`);
      }
      assert.equal(restored, 5, "no micro-VM was brought back");
      assert.equal(drawn.size, 10, [...drawn].join());
    }
  });

  test("a fresh micro-VM is put back after each call, and nothing of the call is in the next one", async () => {
    for (const [name, runtime, files] of [
      [
        "reset-node",
        "node24",
        {
          "index.mjs": `import { randomUUID } from "node:crypto";
            import { readdirSync, writeFileSync } from "node:fs";
            let calls = 0;
            export default { async fetch(request, _env, ctx) {
              const before = [globalThis.left, process.env.LEFT, readdirSync("/tmp").length];
              globalThis.left = process.env.LEFT = "left";
              writeFileSync("/tmp/left", "left");
              setInterval(() => {}, 1);
              console.log("left by", ++calls);
              ctx.waitUntil(new Promise(() => {}));
              if (new URL(request.url).searchParams.has("throw")) throw new Error("wanted");
              return Response.json({ calls, before, drawn: [process.pid, Math.random(), randomUUID()] });
            } };`,
        },
      ],
      [
        "reset-python",
        "python3",
        {
          "main.py": `import os, random, threading, time, uuid
calls = 0
left = None
def handler(event, context):
    global calls, left
    calls += 1
    before = [left, os.environ.get("LEFT"), len(os.listdir("/tmp"))]
    left = os.environ["LEFT"] = "left"
    open("/tmp/left", "w").write("left")
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    if (event.get("queryStringParameters") or {}).get("throw"):
        raise ValueError("wanted")
    return {"calls": calls, "before": before, "drawn": [os.getpid(), random.random(), str(uuid.uuid4())]}
`,
        },
      ],
    ] as const) {
      await vm(name, { runtime, files, reuse: "fresh" });
      const none = [null, null, 0];
      const drawn = new Set<string>();
      let resets = 0;
      for (let calls = 0; calls < 80 && resets < 10; calls++) {
        const fails = calls % 4 === 3;
        const response = await call(instance, name, fails ? "/?throw=1" : "/");
        const start = response.headers.get("cloister-start");
        const text = await response.text();
        if (fails) continue;
        assert.equal(response.status, 200, text);
        const answer = JSON.parse(text) as { calls: number; before: unknown[]; drawn: unknown[] };
        assert.deepEqual([answer.calls, answer.before], [1, none], `${start}: ${text}`);
        for (const value of answer.drawn.slice(1)) {
          assert.ok(!drawn.has(String(value)), `${start} drew ${value} again`);
          drawn.add(String(value));
        }
        if (start !== "reset") continue;
        resets++;
        const record = await recordOf(instance, response);
        assert.equal(record.start, "reset");
        const { reset_ms: resetMs } = record.phases as { reset_ms?: number };
        assert.ok(resetMs !== undefined && resetMs > 0, JSON.stringify(record));
      }
      assert.equal(resets, 10, "no micro-VM was reset");
    }
  });

  test("a record tells what the machine did; a container's tells none of it", async () => {
    const files = {
      "index.mjs":
        "import { statSync } from 'node:fs'; export default { fetch() { for (let n = 0; n < 40; n++) statSync('/fn'); return new Response('x'); } };",
    };
    await vm("counted", { files });
    await (await call(instance, "counted")).arrayBuffer();
    const warm = await call(instance, "counted");
    assert.equal(warm.headers.get("cloister-start"), "warm");
    const record = await recordOf(instance, warm);
    const { exits, syscalls } = record as Record<string, Record<string, number>>;
    const calls = Object.values(syscalls ?? {}).reduce((sum, count) => sum + count, 0);
    assert.ok(exits?.syscall && exits.syscall === calls, JSON.stringify(record));
    // The answer itself, and what the function did; nothing of the start, which makes thousands.
    const sent = (syscalls?.sendmsg ?? 0) + (syscalls?.write ?? 0) + (syscalls?.writev ?? 0);
    assert.ok(sent > 0, JSON.stringify(syscalls));
    const stats = (syscalls?.statx ?? 0) + (syscalls?.newfstatat ?? 0) + (syscalls?.stat ?? 0);
    assert.ok(stats >= 40 && stats < 100, JSON.stringify(syscalls));
    assert.ok(Number(record.guestMs) > 0 && Number(record.monitorMs) > 0, JSON.stringify(record));
    assert.equal(typeof record.pageFaults, "number");

    await deploy(instance, { name: "uncounted", isolation: "container", files });
    const contained = await recordOf(instance, await call(instance, "uncounted"));
    assert.equal(contained.path, "container");
    for (const field of ["exits", "syscalls", "guestMs", "monitorMs"])
      assert.equal(contained[field], undefined, field);
    assert.equal(typeof contained.pageFaults, "number");
  });

  test("memory counts when it is touched, and one refusal is survived", async () => {
    await vm("touched", {
      runtime: "python3",
      memoryMb: 256,
      files: {
        "main.py": `
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
def private():
    return mmap(-1, 200 << 20, flags=MAP_PRIVATE | MAP_ANONYMOUS)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) >> 8
def handler(event, context):
    untouched = [private() for _ in range(3)]
    before = resident()
    for at in range(0, 100 << 20, 4096):
        untouched[0][at] = 1
    after = resident()
    try:
        untouched.append(private())
        refused = False
    except OSError:
        refused = True
    return {"before": before, "gained": after - before, "refused": refused}
`,
      },
    });
    const answer = await call(instance, "touched");
    const seen = (await answer.json()) as Record<string, number | boolean>;
    assert.ok(Number(seen.before) < 100, JSON.stringify(seen));
    assert.ok(Number(seen.gained) >= 99, JSON.stringify(seen));
    assert.equal(seen.refused, true);
  });

  test("the host's files, processes and devices are not there", async () => {
    await vm("looks", {
      runtime: "python3",
      files: {
        "main.py": `
import os
def reads(path):
    try:
        return open(path, "rb").read(1) != b""
    except OSError:
        return False
def handler(event, context):
    return {
        "read": [p for p in ("/etc/shadow", "/dev/kvm", "/dev/mem", "/proc/kcore", "/proc/2/environ", "/sys/kernel/notes") if reads(p)],
        "others": [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()],
        "roots": sorted(os.listdir("/")),
    }
`,
      },
    });
    const seen = (await (await call(instance, "looks")).json()) as Record<string, string[]>;
    assert.deepEqual(seen.read, []);
    assert.deepEqual(seen.others, []);
    assert.ok(!seen.roots?.includes("root"), JSON.stringify(seen.roots));
  });

  test("a native program is refused there, with the reason, and runs in no container instead", async () => {
    await vm("native", { runtime: "binary", files: { bootstrap: "#!/bin/true\n" } });
    const refused = await problem(await call(instance, "native"));
    assert.equal(refused.status, 503);
    assert.equal(refused.code, "isolation_unavailable");
    assert.match(refused.detail ?? "", /one process/);
  });
});
