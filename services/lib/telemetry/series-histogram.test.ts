import assert from "node:assert/strict";
import { test } from "node:test";
import { DURATION_BUCKETS_SECONDS, Histogram, Registry } from "./metrics.ts";
import { SeriesHistogram, SeriesTable } from "./series-histogram.ts";

const OPTIONS = { name: "x_seconds", help: "What it took", buckets: DURATION_BUCKETS_SECONDS };

test("/metrics shows what prom-client's own histogram would", async () => {
  const [ours, theirs] = [new Registry(), new Registry()];
  const table = new SeriesTable(
    new SeriesHistogram({ ...OPTIONS, registry: ours }),
    "path",
    "start",
  );
  const own = new Histogram({ ...OPTIONS, labelNames: ["path", "start"], registers: [theirs] });
  assert.equal(await ours.metrics(), await theirs.metrics());
  for (let n = 0; n < 2000; n++) {
    const path = n % 3 === 0 ? "container" : "microvm";
    const start = n % 5 === 0 ? "cold" : 'w"arm\\';
    // All magnitudes there are, and each bound itself.
    const value = DURATION_BUCKETS_SECONDS[n % 40] ?? 10 ** (-5 + (n % 7)) * (1 + (n % 11));
    table.of(path, start).observe(value);
    own.observe({ path, start }, value);
  }
  assert.equal(await ours.metrics(), await theirs.metrics());
});

test("a series is found again by its labels; what is no number is left out", async () => {
  const registry = new Registry();
  const histogram = new SeriesHistogram({ ...OPTIONS, registry });
  const series = histogram.of({ path: "container" });
  assert.equal(histogram.of({ path: "container" }), series);
  assert.notEqual(histogram.of({ path: "microvm" }), series);
  series.observe(Number.NaN);
  series.observe(2);
  assert.deepEqual([series.sum, series.counts.reduce((all, count) => all + count)], [2, 1]);
});
