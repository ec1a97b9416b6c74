import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { comparisonSchema } from "#contracts/comparison";
import { commandLine, type Instance, startInstance, testEnvironment } from "#testkit/instance";
import { findRunsc } from "../host/runsc.ts";
import { cli } from "./run-cli.ts";

const EXAMPLE = join(import.meta.dirname, "../../../examples/hello");

describe("compare", { timeout: 300_000 }, () => {
  let instance: Instance;
  const folder = mkdtempSync(join(tmpdir(), "cloister-compare-"));
  before(async () => {
    instance = await startInstance();
    const deployed = await run("deploy", EXAMPLE, "--no-wait");
    assert.equal(deployed.code, 0, deployed.stderr);
  });
  after(async () => {
    await instance?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const run = (...words: string[]) =>
    cli(words, {
      data: instance.dataDirectory,
      // Whether this machine has one or not, it is not to be had.
      env: { CLOISTER_RUNSC: "/nowhere/runsc" },
    });

  test("both paths and a peer, in JSON and in one file with plots", async () => {
    const html = join(folder, "hello.html");
    const { code, stdout, stderr } = await run(
      ...["compare", "hello", "-n", "2", "--request", "/?name=you"],
      ...["--peers", "process,runsc", "--html", html, "--json"],
    );
    assert.equal(code, 0, stderr);
    const { peers, host, ...comparison } = JSON.parse(stdout);
    const { paths, call } = comparisonSchema.parse(comparison);
    assert.equal(call, "GET /?name=you");
    assert.ok(host.kernel);
    assert.deepEqual(
      paths.map(({ path, starts }) => [path, ...starts.map(({ start }) => start)]),
      [
        ["container", "cold", "prepared", "warm"],
        ["microvm", "cold", "restored", "warm"],
      ],
    );
    for (const { path, available, starts } of paths) {
      assert.ok(available, path);
      for (const { start, n, failures, first_failure, private_kib } of starts) {
        assert.deepEqual([n, failures], [2, 0], `${path} ${start}: ${first_failure}`);
        assert.ok((private_kib ?? 0) > 0, `${path} ${start}`);
      }
    }
    assert.ok((paths[1]?.exits?.syscall ?? 0) > 0);
    const shown = (
      peers as { peer: string; n: number; failures: number; available: boolean }[]
    ).map(({ peer, n, failures, available }) => [peer, n, failures, available]);
    assert.deepEqual(shown, [
      ["process", 2, 0, true],
      ["container-cold", 2, 0, true],
      ["microvm-cold", 2, 0, true],
      ["runsc", 0, 0, false],
    ]);
    assert.equal(peers.at(-1).reason, "CLOISTER_RUNSC names /nowhere/runsc, which is no program");
    const page = readFileSync(html, "utf8");
    assert.match(page, /<svg viewBox/);
    assert.doesNotMatch(page, /(?:src|href)="(?!#)|https?:\/\/(?!www\.w3\.org)/);
  });

  test("gVisor answers beside the others where it is installed", async (t) => {
    const found = await findRunsc();
    if ("lack" in found) return t.skip(found.lack);
    const { code, stdout, stderr } = await cli(
      ["compare", "hello", "-n", "1", "--path", "container", "--peers", "runsc", "--json"],
      { data: instance.dataDirectory, env: { CLOISTER_RUNSC: found.path } },
    );
    assert.equal(code, 0, stderr);
    const [own] = JSON.parse(stdout).peers;
    assert.deepEqual([own.peer, own.n, own.failures], ["runsc", 1, 0], own.first_failure);
    assert.match(own.remark, /^gVisor .+, platform systrap, (?:limited as runc is|without limits)/);
  });

  test("text to paste; a path that the function may not have is told, not replaced", async () => {
    const made = await run(
      "deploy",
      EXAMPLE,
      "--name",
      "strict",
      "--isolation",
      "microvm",
      "--no-wait",
    );
    assert.equal(made.code, 0, made.stderr);
    const { code, stdout, stderr } = await run("compare", "strict", "-n", "1", "--markdown");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^\| container \| not to be had \| - \|/m);
    assert.match(stdout, /^\| microvm \| restored \| 1 \| 0 \|/m);
    assert.match(stdout, /^container cannot be had: .*isolation_not_allowed/m);
  });

  test("bench throughput sends what is due, to both paths, and tells what became of it", async () => {
    const { code, stdout, stderr } = await run(
      ...["bench", "throughput", "--warm-up", "1", "--seconds", "1", "--rate", "40", "--json"],
      ...["--data-dir", instance.dataDirectory],
    );
    assert.equal(code, 0, stderr);
    const { paths } = JSON.parse(stdout);
    assert.deepEqual(
      paths.map(({ path, requests, failures, dropped }: Record<string, unknown>) => [
        path,
        Number(requests) + Number(dropped),
        failures,
      ]),
      [
        ["container", 40, 0],
        ["microvm", 40, 0],
      ],
    );
    for (const { starts, requests, cpu_us } of paths) {
      const sum = Object.values(starts as Record<string, number>).reduce((all, n) => all + n, 0);
      assert.equal(sum, requests);
      for (const part of ["gateway", "worker", "client"]) assert.ok(part in cpu_us, part);
    }
  });

  test("what cannot be compared is one sentence and a remedy", async () => {
    const bad = join(folder, "bad.mjs");
    writeFileSync(bad, `export default { fetch() { throw new Error("on purpose"); } };`);
    assert.equal((await run("deploy", bad, "--name", "bad", "--no-wait")).code, 0);
    const cases: [words: string[], code: number, said: RegExp][] = [
      [["nobody"], 1, /function_not_found\)\.\n {2}List yours/],
      [["hello@9"], 1, /version_not_found/],
      [["hello", "-n", "0"], 2, /1 to 1000/],
      [["hello", "-n", "1000000000"], 2, /1 to 1000/],
      [["hello", "--peers", "docker"], 2, /no docker/],
      [["hello", "--data", "{"], 1, /not JSON/],
      [["hello", "--data", "{}", "--request", "/"], 2, /one of the two/],
      [["hello", "--html", join(folder, "no/where.html")], 1, /cannot be written/],
      [["hello", "--table"], 2, /no function of yours/],
      [[], 2, /Which function/],
    ];
    for (const [words, code, said] of cases) {
      const ended = await run("compare", ...words);
      assert.match(ended.stderr, said, words.join(" "));
      assert.equal(ended.code, code, words.join(" "));
    }
    const failing = await run("compare", "bad", "-n", "100");
    assert.equal(failing.code, 1);
    assert.match(failing.stdout, /Stopped early\. Every call .* on purpose/);
  });

  test("Ctrl-C ends it, and the service's part with it", async () => {
    const [program, args] = commandLine("compare", "hello", "-n", "1000");
    const env = testEnvironment({ CLOISTER_DATA: instance.dataDirectory });
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], env });
    let said = "";
    child.stderr.setEncoding("utf8");
    const ended = once(child, "close");
    let sent = false;
    for await (const text of child.stderr) {
      said += text;
      // It tells how far it is; then it is under way.
      if (!sent && /^\d+ of \d+: /m.test(said)) sent = child.kill("SIGINT");
    }
    const [code] = await ended;
    assert.equal(code, 130, said);
    assert.match(said, /interrupted/);
    // The tenant's next one is not told that another still runs.
    let next = await run("compare", "hello", "-n", "1", "--path", "container");
    for (let tries = 0; /still running/.test(next.stderr) && tries < 20; tries++)
      next = await run("compare", "hello", "-n", "1", "--path", "container");
    assert.equal(next.code, 0, next.stderr);
  });
});
