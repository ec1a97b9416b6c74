import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { account } from "#embedded/unprivileged";
import type { Folders } from "./folders.ts";
import { handOnPlacementRules, placementRulesEnvironment } from "./placement-rules.ts";

const USER = "nobody";
const run = mkdtempSync(join(tmpdir(), "cloister-run-"));
const folders = { run } as Folders;
const source = join(run, "source.json");
const copy = join(run, "placement-rules.json");
afterEach(() => {
  delete process.env.CLOISTER_PLACEMENT_RULES;
  rmSync(copy, { force: true });
});
after(() => rmSync(run, { recursive: true }));

function give(content: string): void {
  writeFileSync(source, content, { mode: 0o600 });
  process.env.CLOISTER_PLACEMENT_RULES = source;
}

test("services get a copy that they alone can read, and learn where it is", () => {
  give('{"version":"a"}');
  handOnPlacementRules(folders, USER);
  assert.equal(readFileSync(copy, "utf8"), '{"version":"a"}');
  const { uid, mode } = statSync(copy);
  assert.deepEqual([uid, mode & 0o777], [account(USER).uid, 0o640]);
  assert.deepEqual(placementRulesEnvironment(folders), { CLOISTER_PLACEMENT_RULES: copy });
});

test("a link that lies where the copy goes is not followed", () => {
  const target = join(run, "target");
  writeFileSync(target, "mine");
  symlinkSync(target, copy);
  give('{"version":"a"}');
  handOnPlacementRules(folders, USER);
  assert.equal(readFileSync(target, "utf8"), "mine");
  assert.ok(lstatSync(copy).isFile());
});

test("rules with a fault start nothing, and leave no copy", () => {
  give('{"version":"a","rules":[{"id":"x","effect":{"pin":"container"},"why":"y"}]}');
  assert.throws(() => handOnPlacementRules(folders, USER), /own rules can only ask for more/);
  assert.ok(!existsSync(copy));
});

test("without the variable a former run's copy goes", () => {
  writeFileSync(copy, "{}");
  handOnPlacementRules(folders, USER);
  assert.ok(!existsSync(copy));
  assert.deepEqual(placementRulesEnvironment(folders), {});
});
