import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { Api } from "../http/api.ts";
import { cli } from "./run-cli.ts";

describe("tenants and keys from the shell", { timeout: 300_000 }, () => {
  let instance: Instance;
  let folder: string;
  let file: string;
  const run = (...words: string[]) => cli(words, { data: instance.dataDirectory });
  const done = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...words);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const refused = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...words);
    assert.equal(code, 1, stdout + stderr);
    return stderr;
  };
  /** The command line of somebody who has nothing but a key. */
  const as = (key: string, ...words: string[]) =>
    cli(words, { env: { CLOISTER_URL: instance.url, CLOISTER_KEY: key } });
  const newKey = async (tenant: string, scopes: string): Promise<string> =>
    (await done("key", "create", "test", "--tenant", tenant, "--scopes", scopes)).trim();

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cloister-tenants-"));
    file = join(folder, "waits.mjs");
    writeFileSync(
      file,
      "export const handler = (event) => new Promise((done) => setTimeout(done, event.ms ?? 0, 'waited'));",
    );
    instance = await startInstance();
  });
  after(async () => {
    await instance?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("a tenant of lower trust has functions of its own, on the path of its tier", async () => {
    assert.match(
      await done("tenant", "create", "acme", "--tier", "untrusted"),
      /^created acme \(untrusted\) ten_\w{26}\n$/,
    );
    assert.match(await refused("tenant", "create", "acme"), /named acme already/);
    const key = await newKey("acme", "invoke,deploy,read");
    const deployed = await as(key, "deploy", file, "--name", "waits", "--no-wait");
    assert.equal(deployed.code, 0, deployed.stderr);
    const told = JSON.parse((await as(key, "invoke", "waits", "--json")).stdout);
    assert.deepEqual([told.answer, told.isolation], ["waited", "microvm"]);
    assert.match(await refused("invoke", "waits"), /function_not_found/);
    const weaker = ["invoke", "waits", "--isolation", "container", "--json"];
    assert.match((await as(key, ...weaker)).stderr, /isolation_not_allowed/);
    assert.match(await done("tenant", "set", "acme", "--tier", "trusted"), /is trusted now/);
    const again = JSON.parse((await as(key, ...weaker)).stdout);
    assert.equal(again.isolation, "container", "the worker has heard of it");
    const rows = await done("tenant", "ls");
    assert.match(
      rows,
      /^NAME +TIER +STATE +CREATED +ID\nacme +trusted +active .*\ndefault +trusted/,
    );
    assert.equal(
      JSON.parse(await done("tenant", "ls", "--json", "--tier", "standard")).tenants.length,
      0,
    );
  });

  test("keys are made, listed, rotated and revoked", async () => {
    const key = await newKey("acme", "read");
    const { keys } = JSON.parse(await done("key", "ls", "--tenant", "acme", "--json"));
    const { id } = keys.find(({ scopes }: { scopes: string[] }) => scopes.join() === "read");
    assert.equal((await as(key, "ls")).code, 0);
    const rotated = (await done("key", "rotate", id, "--tenant", "acme", "--grace", "1h")).trim();
    assert.notEqual(rotated, key);
    for (const one of [key, rotated]) assert.equal((await as(one, "ls")).code, 0);
    assert.match(await done("key", "ls", "--tenant", "acme"), /^test +read +active/m);
    await done("key", "revoke", id, "--tenant", "acme");
    for (const one of [key, rotated]) {
      const { code, stderr } = await as(one, "ls");
      assert.equal(code, 1);
      assert.match(stderr, /was revoked/);
    }
    const wrong = await run("key", "create", "x", "--tenant", "acme", "--scopes", "root");
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /Scopes are invoke, deploy, read, admin/);
    assert.match(await refused("key", "ls", "--tenant", "nobody"), /There is no tenant nobody/);
  });

  test("what a suspended tenant runs is finished; what runs of one that is deleted by force is ended", async () => {
    const key = await newKey("acme", "invoke,read");
    const running = (ms: number) => as(key, "invoke", "waits", "--data", JSON.stringify({ ms }));
    const admin = new Api({ url: instance.url, key: instance.adminKey });
    /** Resolves when a node serves a call of this tenant. */
    const begun = async (): Promise<void> => {
      for (;;) {
        const response = await admin.send("GET", "/admin/v1/sandboxes?tenant=acme");
        if (((await response.json()) as { running: number }).running > 0) return;
      }
    };
    // Longer than two commands take to start on a busy machine.
    const first = running(8000);
    await begun();
    assert.match(await refused("tenant", "rm", "acme"), /1 invocation running/);
    assert.match(await done("tenant", "suspend", "acme"), /^acme is suspended/);
    assert.match((await running(0)).stderr, /tenant_suspended/);
    assert.equal((await first).stdout, '"waited"\n');
    assert.match(await done("tenant", "resume", "acme"), /^acme is active/);
    const second = running(25_000);
    await begun();
    assert.equal(await done("tenant", "rm", "acme", "--force"), "deleted acme\n");
    assert.match((await second).stderr, /502 sandbox_failed/);
    assert.match((await running(0)).stderr, /401 unauthenticated/);
    assert.match(await refused("tenant", "show", "acme"), /tenant_not_found/);
    const log = await done("tenant", "audit");
    for (const line of [
      /^.* tenant\.delete +acme \(/m,
      /^.* tenant\.resume .* state suspended -> active/m,
      /^.* key\.revoke +test \(/m,
      /^.* tenant\.change .* tier untrusted -> trusted/m,
      /^.* tenant\.create +acme .* tier untrusted/m,
    ])
      assert.match(log, line);
  });
});
