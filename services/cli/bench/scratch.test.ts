import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makeScratch } from "./scratch.ts";

test("the folders of a benchmark that was killed go with the next one, those of one that runs stay", () => {
  const root = mkdtempSync(join(tmpdir(), "cloister-scratch-"));
  process.env.CLOISTER_IMAGES = join(root, "images");
  process.env.TMPDIR = join(root, "tmp");
  for (const folder of ["images", "images/victim", "tmp", "tmp/cloister-bench-strange"])
    mkdirSync(join(root, folder));
  const strange = join(root, "tmp/cloister-bench-strange/owner.json");
  writeFileSync(strange, JSON.stringify({ pid: 1, startTime: "0", rootfs: "victim" }));
  const killed = makeScratch();
  const lives = makeScratch();
  const file = join(killed.folders.data, "owner.json");
  const owner = JSON.parse(readFileSync(file, "utf8"));
  writeFileSync(file, JSON.stringify({ ...owner, startTime: "0" }));
  const next = makeScratch();
  for (const { folders, rootfs } of [lives, next])
    for (const folder of [folders.data, folders.run, rootfs]) assert.ok(existsSync(folder), folder);
  for (const folder of [killed.folders.data, killed.folders.run, killed.rootfs])
    assert.ok(!existsSync(folder), folder);
  // A name that is none of a benchmark's leads nowhere.
  assert.ok(existsSync(join(root, "images/victim")) && existsSync(strange));
  for (const one of [lives, next]) {
    one.remove();
    assert.ok(!existsSync(one.rootfs) && !existsSync(one.folders.run));
  }
  rmSync(root, { recursive: true });
});
