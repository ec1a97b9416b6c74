import assert from "node:assert/strict";
import { test } from "node:test";
import { privateKib, readSmaps } from "./address-map.ts";

const smaps = (entries: [range: string, rest: string, clean: number, dirty: number][]): string =>
  entries
    .map(
      ([range, rest, clean, dirty]) =>
        `${range} ${rest}\nSize:                  4 kB\nPrivate_Clean:      ${clean} kB\nPrivate_Dirty:      ${dirty} kB\nVmFlags: rd\n`,
    )
    .join("");

test("mappings are read with their file, its offset and their private pages", () => {
  const map = readSmaps(
    smaps([
      ["1000-3000", "r-xp 00002000 08:01 42                         /usr/bin/a name", 4, 8],
      ["7f0000000000-7f0000001000", "rw-p 00000000 00:00 0 ", 0, 4],
    ]),
  );
  assert.deepEqual(map, [
    { start: 0x1000, end: 0x3000, offset: 0x2000, file: "/usr/bin/a name", privateKib: 12 },
    { start: 0x7f0000000000, end: 0x7f0000001000, offset: 0, file: "", privateKib: 4 },
  ]);
});

test("private memory is told apart by whether it lies in a range", () => {
  const map = readSmaps(
    smaps([
      ["1000-2000", "rw-p 00000000 00:00 0", 0, 1],
      ["2000-3000", "rw-p 00000000 00:00 0", 0, 20],
      ["3000-4000", "---p 00000000 00:00 0", 0, 300],
      ["4000-5000", "rw-p 00000000 00:00 0", 0, 4000],
    ]),
  );
  assert.deepEqual(privateKib(map, 0x2000, 0x4000), { inside: 320, outside: 4001 });
  // A mapping over the edge would be counted on one side or the other: the range is wrong.
  assert.throws(() => privateKib(map, 0x2800, 0x4000), /edge/);
});
