import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startTimeOf, waitGone } from "#embedded/process-life";
import { startInstance } from "#testkit/instance";
import { Api } from "../http/api.ts";
import { leftoversOf } from "./leftovers-of.ts";
import { cli } from "./run-cli.ts";

describe("the life of an instance", { timeout: 300_000 }, () => {
  let data: string;
  before(() => {
    data = mkdtempSync(join(tmpdir(), "cloister-life-"));
  });
  after(async () => {
    await cli(["down", "--data", data]);
    rmSync(data, { recursive: true, force: true });
  });

  const body = JSON.stringify({
    name: "kept",
    files: { "index.mjs": "export const handler = async () => 'kept';" },
  });
  const headers = { "content-type": "application/json" };

  async function answers(url: string, key: string): Promise<void> {
    const response = await new Api({ url, key }).send("POST", "/v1/functions/kept/invocations", {
      body: "{}",
      headers,
    });
    assert.equal(response.status, 200, await response.clone().text());
    assert.equal(await response.json(), "kept");
  }

  test("one at a time per folder and port; a clean end leaves nothing", async () => {
    const first = await startInstance({ dataDirectory: data });
    const published = await new Api(first).send("POST", "/v1/functions", { body, headers });
    assert.equal(published.status, 201, await published.text());
    await answers(first.url, first.key);

    const same = await cli(["up", "--data", data, "--port", "1"]);
    assert.equal(same.code, 1);
    assert.match(same.stderr, /already runs on/);
    const other = mkdtempSync(join(tmpdir(), "cloister-life-other-"));
    const taken = await cli(["up", "--data", other, "--port", String(first.port)]);
    assert.equal(taken.code, 1);
    assert.match(taken.stderr, /is taken/);
    assert.deepEqual(leftoversOf(other), []);
    rmSync(other, { recursive: true, force: true });

    await first.stop();
    assert.deepEqual(leftoversOf(data), []);
  });

  test("kill -9 of up ends everything it ran; the next one finds the functions and clears the rest away", async () => {
    const first = await startInstance({ dataDirectory: data });
    await answers(first.url, first.key);
    const former = Object.values(first.pids()).map((pid) => ({ pid, startTime: startTimeOf(pid) }));
    assert.equal(former.length, 5);
    first.supervisor.kill("SIGKILL");
    for (const { pid, startTime } of former) {
      assert.ok(startTime);
      assert.ok(await waitGone(pid, startTime, 20_000), `process ${pid} has ended`);
    }

    const second = await startInstance({ dataDirectory: data });
    assert.equal(second.key, first.key, "keys outlive a crash");
    await answers(second.url, second.key);
    await second.stop();
    assert.deepEqual(leftoversOf(data), []);
  });

  test("--detach returns when it is ready, down when all has ended", async () => {
    const up = await cli([
      "up",
      "--detach",
      "--data",
      data,
      "--port",
      String(20_000 + (process.pid % 20_000)),
    ]);
    assert.equal(up.code, 0, up.stderr);
    assert.match(up.stdout, /^ready http:\/\/127\.0\.0\.1:\d+\n$/);
    const listed = await cli(["ls", "--json"], { data });
    assert.equal(listed.code, 0, listed.stderr);
    const down = await cli(["down", "--data", data]);
    assert.equal(down.code, 0, down.stderr);
    assert.deepEqual(leftoversOf(data), []);
    const again = await cli(["down", "--data", data]);
    assert.equal(again.code, 0);
    assert.match(again.stdout, /nothing runs/);
  });

  test("without a service, commands say how to start one", async () => {
    const { code, stderr } = await cli(["ls"], { data });
    assert.equal(code, 1);
    assert.match(stderr, /No service is running.*\.\/cloister up/s);
  });
});
