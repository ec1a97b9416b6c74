import assert from "node:assert/strict";
import { test } from "node:test";
import { CloisterError } from "#errors/catalogue";
import { type BundleEntry, type BundleLimits, BundleRules } from "./entry-rules.ts";

const entry = (path: string, type = "File", more: Partial<BundleEntry> = {}): BundleEntry => ({
  path,
  type,
  size: 1,
  ...more,
});

function refusal(entries: BundleEntry[], limits?: BundleLimits): string | undefined {
  const rules = new BundleRules(limits);
  try {
    for (const one of entries) rules.admit(one);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof CloisterError && error.code === "bad_bundle");
    return error.message;
  }
}

test("what a packed folder holds comes in", () => {
  const entries = [
    entry("./", "Directory", { size: 0 }),
    entry("node_modules/", "Directory", { size: 0 }),
    entry("node_modules/a/index.js"),
    entry("node_modules/a/", "Directory", { size: 0 }),
    entry("node_modules/.bin/a", "SymbolicLink", { linkpath: "../a/index.js", size: 0 }),
    entry("again.js", "Link", { linkpath: "node_modules/a/index.js", size: 0 }),
    entry("..hidden"),
  ];
  assert.equal(refusal(entries), undefined);
});

const REFUSED: [title: string, entries: BundleEntry[], message: RegExp][] = [
  ["a name twice", [entry("a"), entry("./a")], /"\.\/a" twice/],
  ["a file where a folder is", [entry("a/b"), entry("a")], /"a" twice/],
  ["a folder where a file is", [entry("a"), entry("a/", "Directory")], /"a\/" twice/],
  ["a file below a file", [entry("a"), entry("a/b")], /"a\/b" lies below/],
  [
    "a file below a link",
    [entry("l", "SymbolicLink", { linkpath: "d" }), entry("l/x")],
    /"l\/x" lies below/,
  ],
  [
    "a link that replaces a file",
    [entry("a"), entry("a", "SymbolicLink", { linkpath: "b" })],
    /twice/,
  ],
  [
    "a hard link to what is not there",
    [entry("h", "Link", { linkpath: "a" })],
    /"h" leads to no file/,
  ],
  [
    "a hard link to a link",
    [entry("l", "SymbolicLink", { linkpath: "x" }), entry("h", "Link", { linkpath: "l" })],
    /"h" leads to no file/,
  ],
  ["a file that is the bundle itself", [entry(".")], /no name/],
  ["an endless path", [entry("a/".repeat(200))], /deeper than/],
];
for (const [title, entries, message] of REFUSED)
  test(`refused: ${title}`, () => assert.match(refusal(entries) ?? "", message));

test("entries, bytes and folders nobody named have bounds", () => {
  const limits = { entries: 3, unpackedBytes: 100 };
  assert.equal(
    refusal(
      ["a", "b", "c"].map((path) => entry(path)),
      limits,
    ),
    undefined,
  );
  assert.match(
    refusal(
      ["a", "b", "c", "d"].map((path) => entry(path)),
      limits,
    ) ?? "",
    /3 entries/,
  );
  assert.match(refusal([entry("a", "File", { size: 101 })], limits) ?? "", /larger than 100 bytes/);
  assert.match(refusal([entry("1/2/3/4/5/6/7/8")], limits) ?? "", /folders and files/);
});
