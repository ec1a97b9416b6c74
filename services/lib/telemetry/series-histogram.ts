import type { Histogram, Registry } from "prom-client";

export interface SeriesHistogramOptions {
  name: string;
  help: string;
  /** Upper bounds, rising; a value at a bound is below it. */
  buckets: readonly number[];
  registry: Registry;
}

/** One combination of labels. Whoever observes keeps it, so that no labels are looked up for a value. */
export class Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly counts: Float64Array;
  sum = 0;
  readonly #bounds: Float64Array;

  constructor(labels: Readonly<Record<string, string>>, bounds: Float64Array) {
    this.labels = labels;
    this.#bounds = bounds;
    // The last is for what is above all bounds.
    this.counts = new Float64Array(bounds.length + 1);
  }

  /** NaN would spoil the sum for ever and is left out. */
  observe(value: number): void {
    if (Number.isNaN(value)) return;
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && value > (bounds[at] as number)) at++;
    this.counts[at] = (this.counts[at] as number) + 1;
    this.sum += value;
  }
}

interface Shown {
  labels: Record<string, string | number>;
  value: number;
  metricName: string;
}

/**
 * A histogram for what is observed in every call: prom-client's own builds a text of all labels for each value, which takes ten times as long. In /metrics both
 * look the same.
 */
export class SeriesHistogram {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly #bounds: Float64Array;
  readonly #series = new Map<string, Series>();

  constructor({ name, help, buckets, registry }: SeriesHistogramOptions) {
    this.name = name;
    this.help = help;
    this.#bounds = Float64Array.from(buckets);
    // A registry asks for name and get() alone; its type knows prom-client's own classes only.
    registry.registerMetric(this as unknown as Histogram);
  }

  /** The series of these labels, always the same one. Not for every value: see `Series`. */
  of(labels: Readonly<Record<string, string>>): Series {
    const key = JSON.stringify(labels);
    let series = this.#series.get(key);
    if (!series) {
      series = new Series(labels, this.#bounds);
      this.#series.set(key, series);
    }
    return series;
  }

  async get() {
    const values: Shown[] = [];
    const { name } = this;
    for (const { labels, counts, sum } of this.#series.values()) {
      let below = 0;
      counts.forEach((count, at) => {
        below += count;
        values.push({
          labels: { le: this.#bounds[at] ?? "+Inf", ...labels },
          value: below,
          metricName: `${name}_bucket`,
        });
      });
      values.push({ labels, value: sum, metricName: `${name}_sum` });
      values.push({ labels, value: below, metricName: `${name}_count` });
    }
    return { name, help: this.help, type: this.type, aggregator: this.aggregator, values };
  }
}

/** The series of a histogram with two labels, found without a text of both. */
export class SeriesTable<A extends string, B extends string> {
  readonly #rows = new Map<A, Map<B, Series>>();
  readonly #make: (first: A, second: B) => Series;

  constructor(histogram: SeriesHistogram, first: string, second: string) {
    this.#make = (a, b) => histogram.of({ [first]: a, [second]: b });
  }

  of(first: A, second: B): Series {
    let row = this.#rows.get(first);
    if (!row) {
      row = new Map();
      this.#rows.set(first, row);
    }
    let series = row.get(second);
    if (!series) {
      series = this.#make(first, second);
      row.set(second, series);
    }
    return series;
  }
}
