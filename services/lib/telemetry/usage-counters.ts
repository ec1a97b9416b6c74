import type { Registry } from "prom-client";
import { CPU_US_PER_SECOND, MIB_MS_PER_GB_SECOND, type RecordedUsage } from "#contracts/usage";
import { Counter, metricName } from "./metrics.ts";

/** What the records that this process wrote have metered. Labels are path and status: never a tenant or a function. */
export class UsageCounters {
  readonly #invocations: Counter<"path" | "status">;
  readonly #gbSeconds: Counter<"path" | "status">;
  readonly #cpuSeconds: Counter<"path" | "status">;
  readonly #egressBytes: Counter<"path" | "status">;

  constructor(service: string, registry: Registry) {
    const counter = (what: string, help: string): Counter<"path" | "status"> =>
      new Counter({
        name: metricName(service, `usage_${what}_total`),
        help,
        labelNames: ["path", "status"],
        registers: [registry],
      });
    this.#invocations = counter("invocations", "Invocations metered, by path and status");
    this.#gbSeconds = counter("gb_seconds", "Memory of functions times billed time, GB-seconds");
    this.#cpuSeconds = counter("cpu_seconds", "Processor time of invocations metered");
    this.#egressBytes = counter("egress_bytes", "Bytes of answers' bodies metered");
  }

  add(recorded: readonly RecordedUsage[]): void {
    for (const { path, status, invocations, mibMs, cpuUs, egressBytes } of recorded) {
      const labels = { path, status };
      // A record that was replaced is taken back in the database; a counter only goes up.
      if (invocations > 0) this.#invocations.inc(labels, invocations);
      this.#gbSeconds.inc(labels, mibMs / MIB_MS_PER_GB_SECOND);
      this.#cpuSeconds.inc(labels, cpuUs / CPU_US_PER_SECOND);
      this.#egressBytes.inc(labels, egressBytes);
    }
  }
}
