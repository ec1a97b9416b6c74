import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { cli } from "./run-cli.ts";

describe("quotas from the shell", { timeout: 300_000 }, () => {
  let instance: Instance;
  let folder: string;
  let key: string;
  const run = (...words: string[]) => cli(words, { data: instance.dataDirectory });
  const done = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...words);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  /** The command line of the tenant, who has nothing but a key. */
  const theirs = (...words: string[]) =>
    cli(words, { env: { CLOISTER_URL: instance.url, CLOISTER_KEY: key } });

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cloister-quotas-"));
    writeFileSync(
      join(folder, "waits.mjs"),
      "export const handler = (event) => new Promise((done) => setTimeout(done, event.ms ?? 0, 'waited'));",
    );
    instance = await startInstance();
    await done("tenant", "create", "acme", "--tier", "trusted");
    const scopes = ["--scopes", "invoke,deploy,read"];
    key = (await done("key", "create", "test", "--tenant", "acme", ...scopes)).trim();
    const deployed = await theirs("deploy", join(folder, "waits.mjs"), "--isolation", "container");
    assert.equal(deployed.code, 0, deployed.stderr);
  });
  after(async () => {
    await instance?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("a limit that is set holds at once, is shown with what is used, and is taken away again", async () => {
    assert.match(
      await done("quota", "show", "acme"),
      /^requestsPerSecond +unlimited +- +plan trusted$/m,
    );
    const set = ["--requests-per-second", "0.01", "--burst", "2", "--concurrency", "5"];
    const table = await done("quota", "set", "acme", ...set);
    assert.match(
      table,
      /^QUOTA +LIMIT +USED +FROM\nrequestsPerSecond +0\.01 +- +set\nburst +2 +0 +set\n/,
    );
    for (let call = 0; call < 2; call++) assert.equal((await theirs("invoke", "waits")).code, 0);
    const refused = await theirs("invoke", "waits");
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /requestsPerSecond allows 0\.01 calls a second \(429 quota_exceeded\)/,
    );
    const told = JSON.parse(await done("quota", "show", "acme", "--json"));
    assert.deepEqual(told.own, { requestsPerSecond: 0.01, burst: 2, concurrency: 5 });
    assert.deepEqual([told.use.burst, told.use.functions, told.use.concurrency], [2, 1, 0]);
    // Others have nothing to do with it, and the other fields stay.
    const more = ["--requests-per-second", "none", "--burst", "plan", "--memory", "128"];
    const { code, stdout, stderr } = await run("quota", "set", "acme", ...more, "--json");
    assert.equal(code, 0, stderr);
    const now = JSON.parse(stdout);
    assert.deepEqual(now.own, { requestsPerSecond: null, concurrency: 5, memoryMb: 128 });
    assert.deepEqual(now.over, ["memoryMb"]);
    assert.match(
      (await theirs("invoke", "waits")).stderr,
      /memoryMb allows functions of at most 128 MiB/,
    );
    assert.deepEqual(JSON.parse(await done("quota", "set", "acme", "--reset", "--json")).own, {});
    assert.equal((await theirs("invoke", "waits")).code, 0);
  });

  test("a minimum isolation that is set moves a function into a micro-VM", async () => {
    const path = async () =>
      JSON.parse((await theirs("invoke", "waits", "--json")).stdout).isolation;
    assert.equal(await path(), "container");
    await done("quota", "set", "acme", "--minimum-isolation", "microvm");
    assert.equal(await path(), "microvm");
    const weaker = await theirs("invoke", "waits", "--isolation", "container");
    assert.match(weaker.stderr, /isolation_not_allowed/);
    await done("quota", "set", "acme", "--reset");
  });

  test("a tenant allows its function less, and is told when it asks for more", async () => {
    await done("quota", "set", "acme", "--concurrency", "4");
    assert.equal((await theirs("quota", "function", "waits", "--concurrency", "1")).code, 0);
    const more = await theirs("quota", "function", "waits", "--concurrency", "5");
    assert.match(more.stderr, /concurrency is at most 4/);
    const shown = await theirs("quota", "function", "waits");
    assert.match(shown.stdout, /^concurrency +1 +set$/m);
    const forbidden = await theirs("quota", "set", "acme", "--reset");
    assert.deepEqual([forbidden.code, /403 forbidden/.test(forbidden.stderr)], [1, true]);
  });

  test("what cannot be set is said before anything is changed", async () => {
    assert.equal((await run("quota", "set", "acme")).code, 2);
    assert.equal((await run("quota", "set", "acme", "--concurrency", "many")).code, 2);
    const wrong = await run("quota", "set", "acme", "--concurrency", "1.5");
    assert.match(wrong.stderr, /concurrency: .*\(400 bad_request\)/);
    const nobody = await run("quota", "show", "nobody");
    assert.match(nobody.stderr, /tenant_not_found/);
  });
});
