import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { documentTable } from "./placement-docs.ts";
import { PLACEMENT_TABLE } from "./placement-table.ts";

const FILE = join(import.meta.dirname, "../../../docs/placement.md");
const BLOCK = /(?<=<!-- table:begin -->\n)[\s\S]*?(?=<!-- table:end -->)/;

/** `UPDATE_DOCS=1` writes the table into the document. */
test("docs/placement.md has the table that decides", () => {
  const document = readFileSync(FILE, "utf8");
  const table = `\n${documentTable(PLACEMENT_TABLE)}\n\n`;
  if (process.env.UPDATE_DOCS)
    writeFileSync(
      FILE,
      document.replace(BLOCK, () => table),
    );
  else
    assert.ok(
      BLOCK.exec(document)?.[0] === table,
      "the table has changed: run this test with UPDATE_DOCS=1 and look at what it wrote",
    );
});

test("rule ids are unique, and every reason can follow another in a sentence", () => {
  const ids = PLACEMENT_TABLE.rules.map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
  for (const { why, remedy } of PLACEMENT_TABLE.rules) {
    assert.match(why, /^[a-z].*[^.]$/);
    if (remedy) assert.match(remedy, /^[A-Z].*\.$/);
  }
});
