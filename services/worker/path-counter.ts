import { Counter, type Registry } from "#telemetry/metrics";

/**
 * A counter by path and one label more that is added to many times for each call: sums are plain numbers until somebody asks, as prom-client looks its
 * labels up at each `inc`.
 */
export class PathCounter {
  readonly #sums = new Map<string, Map<string, number>>();

  constructor(name: string, help: string, label: string, registry: Registry) {
    const sums = this.#sums;
    const counter = new Counter({
      name,
      help,
      labelNames: ["path", label],
      registers: [registry],
      collect() {
        counter.reset();
        for (const [path, values] of sums)
          for (const [value, sum] of values) counter.inc({ path, [label]: value }, sum);
      },
    });
  }

  add(path: string, value: string, count: number): void {
    let values = this.#sums.get(path);
    if (!values) {
      values = new Map();
      this.#sums.set(path, values);
    }
    values.set(value, (values.get(value) ?? 0) + count);
  }
}
