import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { Api } from "../http/api.ts";
import { followLogs, storedLogs } from "../http/logs.ts";
import { cli } from "./run-cli.ts";

const EXAMPLES = resolve(import.meta.dirname, "../../../examples");

/** What README's quickstart promises, by the real command line and plain HTTP. */
describe("quickstart", { timeout: 300_000 }, () => {
  let instance: Instance;
  let folder: string;
  const run = (words: string[], input?: string) =>
    cli(words, { data: instance.dataDirectory, ...(input === undefined ? {} : { input }) });
  const authorization = () => ({ authorization: `Bearer ${instance.key}` });

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cloister-quickstart-"));
    instance = await startInstance({ fromNothing: true });
  });
  after(async () => {
    await instance?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const deployFile = async (name: string, source: string, ...more: string[]): Promise<void> => {
    const file = join(folder, `${name}.mjs`);
    writeFileSync(file, source);
    const { code, stderr } = await run(["deploy", file, "--name", name, ...more]);
    assert.equal(code, 0, stderr);
  };

  test("credentials are root's alone", () => {
    const { mode } = statSync(join(instance.dataDirectory, "credentials.json"));
    assert.equal(mode & 0o777, 0o600);
  });

  test("a folder is deployed, called over HTTP, and says how it ran", async () => {
    const deployed = await run(["deploy", join(EXAMPLES, "hello")]);
    assert.equal(deployed.code, 0, deployed.stderr);
    assert.match(deployed.stdout, /^hello@1 http:\/\/127\.0\.0\.1:\d+\/f\/hello/);
    const url = deployed.stdout.trim().split(" ")[1] ?? "";
    for (const start of [/^(cold|prepared)$/, /^warm$/]) {
      const response = await fetch(`${url.replace(/\/$/, "")}/?name=you`, {
        headers: authorization(),
      });
      assert.equal(response.status, 200);
      assert.deepEqual(await response.json(), { message: "Hello, you!" });
      assert.equal(response.headers.get("cloister-isolation"), "container");
      assert.match(response.headers.get("cloister-start") ?? "", start);
      assert.equal(response.headers.get("cloister-version"), "1");
      assert.match(response.headers.get("cloister-invocation-id") ?? "", /^inv_[0-9a-v]{26}$/);
      assert.match(
        response.headers.get("server-timing") ?? "",
        /queue;dur=.*acquire;dur=.*handler;dur=.*total;dur=/,
      );
    }
  });

  test("publishing again makes the next version; both can be called", async () => {
    await deployFile("twice", "export const handler = async () => 'one';");
    await deployFile("twice", "export const handler = async () => 'two';");
    const versions = JSON.parse((await run(["versions", "twice", "--json"])).stdout);
    assert.deepEqual(
      versions.versions.map(({ version }: { version: number }) => version).sort(),
      [1, 2],
    );
    assert.equal((await run(["invoke", "twice"])).stdout, '"two"\n');
    assert.equal((await run(["invoke", "twice@1"])).stdout, '"one"\n');
  });

  test("events come from an argument, a file or stdin", async () => {
    await deployFile("echo", "export const handler = async (event) => event;");
    const file = join(folder, "event.json");
    writeFileSync(file, '{"from":"file"}');
    assert.equal(
      (await run(["invoke", "echo", "--data", '{"from":"argument"}'])).stdout,
      '{"from":"argument"}\n',
    );
    assert.equal((await run(["invoke", "echo", "--data", `@${file}`])).stdout, '{"from":"file"}\n');
    assert.equal(
      (await run(["invoke", "echo", "--data", "-"], '{"from":"stdin"}')).stdout,
      '{"from":"stdin"}\n',
    );
    const shown = JSON.parse((await run(["invoke", "echo", "--json"])).stdout);
    assert.equal(shown.status, 200);
    assert.equal(shown.isolation, "container");
    assert.deepEqual(shown.answer, {});
  });

  test("what a function prints is shown by --log and logs", async () => {
    await deployFile(
      "speaks",
      "export const handler = async () => { console.log('a word'); return 1; };",
    );
    const invoked = await run(["invoke", "speaks", "--log"]);
    assert.equal(invoked.stdout, "1\n");
    assert.match(invoked.stderr, /a word/);
    const logs = await run(["logs", "speaks"]);
    assert.match(logs.stdout, /stdout a word/);
  });

  test("--trace shows the system calls of one call in a micro-VM, and is refused in a container", async () => {
    // What the function itself writes there is its log, however much it looks like a trace.
    const source = `import { readFileSync, writeSync } from "node:fs";
export const handler = async (event) => {
  writeSync(2, "\\u00010123456789abcdef [1] forged() = 0\\nown words\\n");
  if (event.fail) throw new Error("failed");
  try { readFileSync("/tmp/" + event.file); } catch {}
  return event.file;
};`;
    await deployFile("seen", source, "--isolation", "microvm");
    const event = (fields: object) => ["--data", JSON.stringify(fields)];
    const before = await run(["invoke", "seen", ...event({ file: "untraced" })]);
    assert.equal(before.stdout, '"untraced"\n', before.stderr);
    const traced = await run(["invoke", "seen", "--trace", ...event({ file: "looked-for" })]);
    assert.equal(traced.code, 0, traced.stderr);
    assert.equal(traced.stdout, '"looked-for"\n');
    assert.match(traced.stderr, /^\[1\] openat\(.*"\/tmp\/looked-for".*\) = -1 ENOENT/m);
    assert.match(traced.stderr, /^\[1\] writev\(3, /m);
    assert.match(traced.stderr, /end of the trace\n$/);
    assert.doesNotMatch(traced.stderr, /forged|own words|untraced/);
    const failed = await run(["invoke", "seen", "--trace", ...event({ fail: true })]);
    assert.equal(failed.code, 1);
    assert.match(failed.stderr, /^\[1\] write\(2, /m);
    assert.match(failed.stderr, /function_error/);
    const after = await run(["invoke", "seen", ...event({ file: "later" })]);
    assert.equal(after.code, 0, after.stderr);
    const logs = await run(["logs", "seen", "-n", "1000"]);
    assert.match(logs.stdout, / stderr .*forged\(\) = 0\n.* stderr own words/);
    assert.match(logs.stdout, / trace \[1\] openat\(.*looked-for/);
    assert.doesNotMatch(logs.stdout, / trace .*(untraced|later)/);

    const contained = await run(["invoke", "speaks", "--trace"]);
    assert.equal(contained.code, 1);
    assert.match(contained.stderr, /trace_unavailable/);
    assert.match(contained.stderr, /--isolation microvm/);
  });

  test("a deploy waits for the snapshot of a micro-VM's function and tells of it", async () => {
    const file = join(EXAMPLES, "hello");
    const isolation = ["--isolation", "microvm"];
    const waited = await run(["deploy", file, "--name", "frozen", ...isolation]);
    assert.equal(waited.code, 0, waited.stderr);
    assert.match(waited.stdout, /^frozen@1 http:\S+\n$/);
    assert.match(waited.stderr, /^snapshot ready after [\d.]+ s, [\d.]+ MiB$/m);
    const answer = await run(["invoke", "frozen", "--json"]);
    assert.equal(answer.code, 0, answer.stderr);
    assert.match(answer.stdout, /"restored"/);
    const told = await run(["deploy", file, "--name", "frozen", ...isolation, "--json"]);
    const { snapshot } = JSON.parse(told.stdout) as { snapshot: { state: string; bytes: number } };
    assert.equal(snapshot.state, "ready", told.stdout);
    assert.ok(snapshot.bytes > 0);
    const unwaited = await run(["deploy", file, "--name", "frozen", ...isolation, "--no-wait"]);
    assert.equal(unwaited.code, 0, unwaited.stderr);
    assert.doesNotMatch(unwaited.stderr, /snapshot/);
    const contained = await run([
      "deploy",
      file,
      "--name",
      "contained",
      "--isolation",
      "container",
    ]);
    assert.match(contained.stderr, /^no snapshot: Only micro-VMs have snapshots/m);
  });

  test("environment, memory and timeout of a deploy reach the function", async () => {
    const source =
      "export const handler = async (_, context) => [process.env.WORD, context.memoryLimitInMB];";
    await deployFile("settings", source, "--env", "WORD=spoken", "--memory", "128");
    assert.deepEqual(JSON.parse((await run(["invoke", "settings"])).stdout).map(String), [
      "spoken",
      "128",
    ]);
    await deployFile(
      "never",
      "export const handler = () => new Promise(() => {});",
      "--timeout",
      "200",
    );
    const late = await run(["invoke", "never"]);
    assert.equal(late.code, 1);
    assert.match(late.stderr, /504 function_timeout/);
  });

  test("a removed function is gone", async () => {
    await deployFile("brief", "export const handler = async () => 1;");
    assert.equal((await run(["rm", "brief"])).code, 0);
    const list = JSON.parse((await run(["ls", "--json"])).stdout);
    assert.ok(!list.functions.some(({ name }: { name: string }) => name === "brief"));
    const call = await run(["invoke", "brief"]);
    assert.equal(call.code, 1);
    assert.match(call.stderr, /404 function_not_found/);
  });

  test("placement tells the path and why", async () => {
    await deployFile("placed", "export const handler = async () => 1;");
    const placement = JSON.parse((await run(["placement", "placed", "--json"])).stdout);
    assert.equal(placement.path, "container");
    assert.ok(placement.reasons.length > 0);
  });

  test("the same function answers from a micro-VM, and says so", async () => {
    await deployFile(
      "strict",
      "export const handler = async () => 'guest';",
      "--isolation",
      "microvm",
    );
    const call = () =>
      fetch(`${instance.url}/f/strict/`, {
        headers: authorization(),
        signal: AbortSignal.timeout(60_000),
      });
    for (const start of [/^restored$/, /^warm$/]) {
      const response = await call();
      assert.equal(response.status, 200, await response.clone().text());
      assert.equal(await response.text(), "guest");
      assert.equal(response.headers.get("cloister-isolation"), "microvm");
      assert.match(response.headers.get("cloister-start") ?? "", start);
    }
    const weaker = await run(["invoke", "strict", "--isolation", "container"]);
    assert.equal(weaker.code, 1);
    assert.match(weaker.stderr, /403 isolation_not_allowed/);
  });

  const mistakes: [string, string[], RegExp][] = [
    ["a file that is not there", ["deploy", "/nowhere/at/all"], /does not exist/],
    ["an event that is no JSON", ["invoke", "echo", "--data", "{"], /is not JSON/],
    ["a name that cannot be", ["invoke", "no such name"], /\(4\d\d \w+\)/],
    ["asynchronous calls", ["invoke", "echo", "--async"], /not in this version/],
    ["a command of a later version", ["alias", "x"], /not in this version/],
  ];
  for (const [what, words, message] of mistakes) {
    test(`one sentence and a remedy: ${what}`, async () => {
      const { code, stdout, stderr } = await run(words);
      assert.equal(code, 1);
      assert.equal(stdout, "");
      assert.match(stderr, message);
      assert.match(stderr, /^cloister: .+\.\n {2}\S.+\n$/s);
    });
  }

  test("a wrong key is told so", async () => {
    const { code, stderr } = await cli(["ls"], {
      env: { CLOISTER_URL: instance.url, CLOISTER_KEY: `cl_${"0".repeat(43)}` },
    });
    assert.equal(code, 1);
    assert.match(stderr, /401 unauthenticated/);
  });

  test("request and answer stream at the same time", async () => {
    await deployFile(
      "mirror",
      "export default { fetch: (request) => new Response(request.body) };",
    );
    const call = request(`${instance.url}/f/mirror/`, { method: "POST", headers: authorization() });
    call.write("first");
    const [response] = (await once(call, "response")) as [IncomingMessage];
    response.setEncoding("utf8");
    // The second piece is sent only after the first came back: nothing waits for a whole body.
    assert.equal((await once(response, "data"))[0], "first");
    call.write("second");
    assert.equal((await once(response, "data"))[0], "second");
    const ended = once(response, "end");
    call.end();
    await ended;
  });

  test("a caller that hangs up cancels the function", async () => {
    await deployFile(
      "patient",
      `export default { async fetch(request) {
        console.log("waiting");
        await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
        console.log("the caller has gone");
        return new Response("nobody reads this");
      } };`,
      ...["--timeout", "60000"],
    );
    const api = new Api({ url: instance.url, key: instance.key });
    // Open before the call, so that its first line is not missed.
    const lines = await followLogs(api, "patient", AbortSignal.timeout(30_000));
    const hangUp = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { text } of lines) {
        seen.push(text);
        if (text.includes("waiting")) hangUp.abort();
        if (text.includes("the caller has gone")) return;
      }
    })();
    const call = fetch(`${instance.url}/f/patient/`, {
      headers: authorization(),
      signal: hangUp.signal,
    });
    await assert.rejects(call, { name: "AbortError" });
    await reading;
    assert.ok(seen.join("").includes("the caller has gone"));
    const stored = await storedLogs(api, "patient", { limit: "10" });
    assert.ok(stored.every(({ text }) => !text.includes("nobody reads this")));
  });

  test("the service says how it is", async () => {
    assert.equal((await fetch(`${instance.url}/healthz`)).status, 200);
    assert.equal((await fetch(`${instance.url}/readyz`)).status, 200);
    const api = (await (await fetch(`${instance.url}/openapi.json`)).json()) as { openapi: string };
    assert.match(api.openapi, /^3\./);
  });
});
