import assert from "node:assert/strict";
import { test } from "node:test";
import { figure } from "./markup.ts";
import { htmlTable, markdownTable, page, paste } from "./page.ts";
import { cdf, MOST_SERIES, stackedBars, timeSeries } from "./plots.ts";
import { linearScale, logScale } from "./scale.ts";

const text = { id: "p", title: "A <title>", caption: 'Says "it" & more' };
const HOSTILE = `</svg><script>alert("x")</script>`;

/** Every start tag has its end tag; none is crossed. */
function balanced(markup: string): void {
  const open: string[] = [];
  const single = new Set(["input", "meta"]);
  const body = markup.replace(/<script[^>]*>[\s\S]*?<\/script>|<style>[\s\S]*?<\/style>/g, "");
  for (const [, end, name = "", itself] of body.matchAll(
    /<(\/)?([a-z0-9]+)(?:\s[^<>]*?)?(\/)?>/g,
  )) {
    if (end) assert.equal(open.pop(), name, markup.slice(0, 2000));
    else if (!itself && !single.has(name)) open.push(name);
  }
  assert.deepEqual(open, []);
}

/** Numbers of a path, in turn. */
const numbersOf = (markup: string, series: number): number[] =>
  [
    ...(
      new RegExp(`at-${series}"><title>[^<]*</title><path d="([^"]*)"`).exec(markup)?.[1] ?? ""
    ).matchAll(/-?\d+(?:\.\d+)?/g),
  ].map(Number);

test("a CDF rises to the top, never turns back, and says its p50 and p99", () => {
  const drawn = cdf(text, "ms", [
    { name: "one", values: [3, 1, 2, 100] },
    { name: HOSTILE, values: [0.1] },
    { name: "none", values: [] },
  ]);
  balanced(drawn);
  assert.match(drawn, /one: p50 2 ms, p99 100 ms, n 4/);
  assert.ok(!drawn.includes("<script"));
  const path = /at-0"><title>[^<]*<\/title><path d="([^"]*)"/.exec(drawn)?.[1] ?? "";
  const across = [...path.matchAll(/H([\d.]+)/g)].map(([, x]) => Number(x));
  const up = [...path.matchAll(/V([\d.]+)/g)].map(([, y]) => Number(y));
  assert.equal(across.length, 4);
  assert.deepEqual(
    across,
    across.toSorted((a, b) => a - b),
  );
  assert.deepEqual(
    up,
    up.toSorted((a, b) => b - a),
  );
  assert.equal(up.at(-1), 14);
  assert.equal((drawn.match(/type="checkbox"/g) ?? []).length, 3);
});

test("parts of a bar stand side by side, and together are as long as their sum says", () => {
  const drawn = stackedBars(text, "ms", { a: "first", b: HOSTILE }, [
    { name: "long", parts: { a: 30, b: 10 } },
    { name: "short", parts: { b: 20 }, note: "said" },
    { name: "empty", parts: {} },
  ]);
  balanced(drawn);
  assert.ok(!drawn.includes("<script"));
  const rects = [
    ...drawn.matchAll(/<rect class="part (c\d) [^"]*" x="([\d.]+)" y="(\d+)" width="([\d.]+)"/g),
  ].map(([, colour, x, y, width]) => ({
    colour,
    x: Number(x),
    y: Number(y),
    width: Number(width),
  }));
  const [first, second, third] = rects;
  assert.ok(first && second && third && rects.length === 3);
  assert.ok(Math.abs(first.x + first.width - second.x) < 0.02);
  assert.ok(Math.abs(first.width - 3 * second.width) < 0.1);
  assert.ok(Math.abs(third.width - 2 * second.width) < 0.1);
  assert.equal(second.colour, third.colour);
  assert.match(drawn, />40 ms<.*>said<.*>0 ms</s);
});

test("more parts than can be told apart become one, and no bar gets shorter by that", () => {
  const names = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`p${n}`, `part ${n}`]));
  const parts = Object.fromEntries(Object.keys(names).map((name) => [name, 1]));
  const drawn = stackedBars(text, "ms", names, [{ name: "all", parts }]);
  balanced(drawn);
  assert.match(drawn, />20 ms</);
  assert.match(drawn, /all, others: 5 ms/);
  const widths = [...drawn.matchAll(/<rect[^>]* width="([\d.]+)"/g)].map(([, width]) =>
    Number(width),
  );
  assert.equal(widths.length, MOST_SERIES);
  const [first = 0, last = 0] = [widths[0], widths.at(-1)];
  assert.ok(Math.abs(last - 5 * first) < 0.2);
});

test("a line over time is broken where there is no value; both axes can be drawn", () => {
  const points = [
    [0, 1],
    [1, null],
    [2, 1000],
  ] as const;
  for (const axis of ["linear", "log"] as const) {
    const drawn = timeSeries(text, "ms", [{ name: "x", points }], axis);
    balanced(drawn);
    assert.equal((/path d="([^"]*)"\/><circle/.exec(drawn)?.[1]?.match(/M/g) ?? []).length, 2);
    const [, y1 = 0, , , y2 = 0] = numbersOf(drawn, 0);
    assert.ok(y1 > y2);
  }
  balanced(timeSeries(text, "ms", []));
  balanced(cdf(text, "ms", [{ name: "zero", values: [0, 0] }]));
});

test("scales hold all their values and mark round ones", () => {
  for (const most of [0.003, 0.9, 1, 7, 95, 12_345]) {
    const scale = linearScale(most, 0, 100);
    assert.ok(scale.at(most) <= 100.0001 && scale.at(most) > 49, String(most));
    assert.equal(scale.ticks[0], 0);
  }
  assert.deepEqual(linearScale(10, 0, 100).ticks, [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(logScale(0.3, 40, 0, 100).ticks, [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]);
  assert.equal(logScale(1, 1, 0, 100).at(10), 100);
  assert.ok(Number.isFinite(linearScale(0, 0, 1).at(0)));
});

test("figures have three digits that count", () => {
  const shown = [0, 0.012345, 1.2345, 12.345, 123.45, 1234.5, 12_345, null, Number.NaN];
  assert.deepEqual(shown.map(figure), [
    "0",
    "0.0123",
    "1.23",
    "12.3",
    "123",
    "1235",
    "12,345",
    "-",
    "-",
  ]);
});

test("a page needs nothing from elsewhere, and what it is given stays text", () => {
  const columns = [{ title: HOSTILE }, { title: "n", right: true }];
  const rows = [[HOSTILE, "1|2"]];
  const made = page({
    title: HOSTILE,
    lead: [HOSTILE],
    sections: [
      { title: HOSTILE, html: htmlTable(HOSTILE, columns, rows) + paste("text", HOSTILE) },
    ],
    data: { text: HOSTILE },
  });
  balanced(made);
  assert.ok(!made.includes("<script>alert"));
  assert.doesNotMatch(made, /(?:src|href)="(?!#)|@import|url\(/);
  assert.match(made, /prefers-color-scheme:dark/);
  const stored =
    /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(made)?.[1] ?? "";
  assert.deepEqual(JSON.parse(stored), { text: HOSTILE });
  assert.equal(
    markdownTable([{ title: "a" }, { title: "n", right: true }], [["x\ny", "1|2"]]),
    "| a | n |\n| --- | ---: |\n| x y | 1\\|2 |\n",
  );
});
