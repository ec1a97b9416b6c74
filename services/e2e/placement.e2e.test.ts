import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy, problem, recordOf } from "./client.ts";

const IMAGES = process.env.CLOISTER_IMAGES ?? join(import.meta.dirname, "../../.cloister/images");

const SPAWNS = `
import { spawnSync } from "node:child_process";
export default { fetch() {
  const { error, stdout } = spawnSync(process.execPath, ["-p", "6 * 7"], { encoding: "utf8" });
  return new Response(error ? error.code : stdout.trim());
} };`;

interface Told {
  path: string | null;
  start?: string;
  rules: string[];
  findings: { needs: { need: string; what: string; file?: string; line?: number }[] };
  nodes: { answered: boolean; paths: Record<string, { ready: boolean; observed: number }> }[];
}

/** What placement says is what then happens, and what it says of micro-VMs is what they do. */
describe("placement", { timeout: 180_000 }, () => {
  let instance: Instance;
  before(async () => {
    instance = await startInstance();
  });
  after(() => instance?.stop());

  const told = async (name: string, isolation?: string): Promise<Told> => {
    const query = isolation === undefined ? "" : `?isolation=${isolation}`;
    const response = await fetch(`${instance.url}/v1/functions/${name}/placement${query}`, {
      headers: { authorization: `Bearer ${instance.key}` },
    });
    assert.equal(response.status, 200, await response.clone().text());
    return (await response.json()) as Told;
  };
  const pathOf = (response: Response): string | null => response.headers.get("cloister-isolation");

  test("a function that starts programs goes where it can, and meets EPERM where somebody names the micro-VM", async () => {
    await deploy(instance, { name: "spawns", files: { "index.mjs": SPAWNS } });
    const free = await told("spawns");
    assert.equal(free.path, "container");
    assert.deepEqual(free.rules, ["auto-trusted", "need-subprocess", "node-offers"]);
    const [need] = free.findings.needs;
    assert.deepEqual(need, {
      ...{ need: "subprocess", what: "spawnSync of child_process" },
      ...{ file: "index.mjs", line: 4 },
    });
    const served = await call(instance, "spawns");
    assert.deepEqual([pathOf(served), await served.text()], ["container", "42"]);

    const named = await told("spawns", "microvm");
    assert.equal(named.path, "microvm");
    assert.ok(named.rules.includes("note-subprocess-caller"));
    const headers = { "cloister-isolation": "microvm" };
    const refused = await call(instance, "spawns", "/", { headers });
    assert.deepEqual([pathOf(refused), await refused.text()], ["microvm", "EPERM"]);
  });

  test("native code of a bundle runs on both paths", async () => {
    const found = globSync("layers/*/usr/lib/python3.*/lib-dynload/_json.*.so", { cwd: IMAGES });
    assert.ok(found[0], "the Python image has extension modules");
    const main = `
import glob
import importlib.util

spec = importlib.util.spec_from_file_location("_json", glob.glob("/fn/_json.*.so")[0])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

def handler(event, context):
    return {"file": module.__file__, "text": module.encode_basestring("a")}
`;
    const native = readFileSync(join(IMAGES, found[0])).toString("base64");
    const name = found[0].slice(found[0].lastIndexOf("/") + 1);
    const files = { "main.py": main, [name]: { base64: native } } as never;
    await deploy(instance, { name: "native", runtime: "python3", files });
    const { findings } = await told("native");
    assert.deepEqual(
      findings.needs.map(({ need, file }) => [need, file]),
      [["native-addon", name]],
    );
    for (const path of ["container", "microvm"]) {
      const response = await call(instance, "native", "/", {
        headers: { "cloister-isolation": path },
      });
      assert.equal(response.status, 200, await response.clone().text());
      assert.equal(pathOf(response), path);
      assert.deepEqual(await response.json(), { file: `/fn/${name}`, text: '"a"' });
    }
  });

  test("starts that calls waited for are what the node tells, and the record names the rules", async () => {
    const files = { "index.mjs": "export default { fetch: () => new Response('hi') };" };
    await deploy(instance, { name: "seen", files });
    const before = await told("seen");
    assert.equal(before.nodes[0]?.answered, true);
    assert.equal(before.nodes[0]?.paths.microvm?.observed, 0);
    const headers = { "cloister-isolation": "microvm" };
    const first = await call(instance, "seen", "/", { headers });
    assert.equal(await first.text(), "hi");
    const after = await told("seen");
    assert.equal(after.nodes[0]?.paths.microvm?.ready, true);
    // Between two paths that will do, the one that stands open.
    assert.deepEqual(
      [after.path, after.start, after.rules.at(-1)],
      ["microvm", "warm", "cost-ready"],
    );
    const warm = await call(instance, "seen");
    assert.deepEqual([pathOf(warm), warm.headers.get("cloister-start")], ["microvm", "warm"]);
    const record = await recordOf(instance, warm);
    assert.deepEqual(record.placementRules, ["auto-trusted", "cost-ready"]);
    assert.equal(record.placementTable, "1");
  });

  test("a native program is refused where a micro-VM is named, with what to do", async () => {
    const files = { main: "#!/bin/no" };
    await deploy(instance, { name: "bin", runtime: "binary", isolation: "microvm", files });
    const { status, code, remedy } = await problem(await call(instance, "bin"));
    assert.deepEqual([status, code], [503, "isolation_unavailable"]);
    assert.match(remedy ?? "", /--isolation container/);
  });
});
