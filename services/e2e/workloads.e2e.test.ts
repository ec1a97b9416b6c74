import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { packFunction } from "../cli/bundle/pack.ts";
import { call } from "./client.ts";

const FOLDER = join(import.meta.dirname, "../../workloads");
const EXPECTED: Record<string, Record<string, unknown>> = JSON.parse(
  readFileSync(join(FOLDER, "expected.json"), "utf8"),
);
const NAMES = readdirSync(FOLDER, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .sort();

/** The functions that are compared answer the same on both paths, in containers and in micro-VMs. */
describe("workloads", { timeout: 300_000 }, () => {
  let instance: Instance;
  before(async () => {
    instance = await startInstance();
  });
  after(() => instance?.stop());

  for (const name of NAMES)
    test(name, async () => {
      const { config, bundle } = await packFunction(join(FOLDER, name));
      const form = new FormData();
      form.set("config", JSON.stringify(config));
      form.set("bundle", new Blob([new Uint8Array(bundle)]), "bundle.tar.gz");
      const deployed = await fetch(`${instance.url}/v1/functions`, {
        method: "POST",
        headers: { authorization: `Bearer ${instance.key}` },
        body: form,
      });
      assert.equal(deployed.status, 201, await deployed.text());
      const expected = Object.entries(EXPECTED[name.replace(/-python$/, "")] ?? {});
      assert.ok(expected.length > 0);
      for (const path of ["container", "microvm"])
        for (const [address, answer] of expected.filter(([one]) => !one.includes("large"))) {
          const response = await call(instance, name, address, {
            headers: { "cloister-isolation": path },
          });
          const body = Buffer.from(await response.arrayBuffer());
          assert.equal(
            response.status,
            200,
            `${path} ${address}: ${body.toString("utf8", 0, 300)}`,
          );
          assert.equal(response.headers.get("cloister-isolation"), path);
          const html = response.headers.get("content-type")?.startsWith("text/html");
          const found = html
            ? { bytes: body.length, sha256: createHash("sha256").update(body).digest("hex") }
            : JSON.parse(body.toString());
          assert.deepEqual(found, answer, `${path} ${address}`);
        }
    });
});
