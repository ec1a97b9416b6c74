import { monthOf } from "#contracts/quota";
import { MIB_MS_PER_GB_SECOND, type RecordedUsage, type SerializedRecord } from "#contracts/usage";
import type { QuotaCounters } from "#queue/quota-counters";

export interface MonthCounterOptions {
  counters: Pick<QuotaCounters, "addGbSeconds" | "raiseMonth">;
  /** GB-seconds of a tenant in a month, as the database has them. */
  readMonthTotals: (month: string, tenantId: string) => Promise<Map<string, number>>;
  onProblem: (error: Error) => void;
}

/**
 * Tells the quota what tenants use in a month, after it is in the database. What could not be told is made up for from there, so that the quota never stays
 * below the records; what is written at the same moment may then count twice until the month is over.
 */
export class MonthCounter {
  readonly #options: MonthCounterOptions;
  /** Tenants and months that the quota may know too little of. */
  readonly #behind = new Map<string, { tenantId: string; month: string }>();
  #last: Promise<void> = Promise.resolve();

  constructor(options: MonthCounterOptions) {
    this.#options = options;
  }

  /** A batch has been recorded. Resolves when the quota knows, or cannot be told now; never rejects. */
  recorded(usage: readonly RecordedUsage[]): Promise<void> {
    this.#last = this.#last.then(() => this.#tell(usage));
    return this.#last;
  }

  async #tell(usage: readonly RecordedUsage[]): Promise<void> {
    const madeUp = this.#behind.size > 0 ? await this.#makeUp() : undefined;
    const sums = new Map<string, { tenantId: string; month: string; mibMs: number }>();
    for (const { tenantId, month, mibMs } of usage) {
      const key = `${tenantId} ${month}`;
      const sum = sums.get(key);
      if (sum) sum.mibMs += mibMs;
      else sums.set(key, { tenantId, month, mibMs });
    }
    await Promise.all(
      [...sums].map(async ([key, { tenantId, month, mibMs }]) => {
        // The total that was read for it has this batch in it.
        if (mibMs === 0 || madeUp?.has(key)) return;
        try {
          await this.#options.counters.addGbSeconds(tenantId, month, mibMs / MIB_MS_PER_GB_SECOND);
        } catch (error) {
          this.#behind.set(key, { tenantId, month });
          this.#options.onProblem(error as Error);
        }
      }),
    );
  }

  /** Records that a killed process left: it may have written the ones before them without telling the quota. To be called before they are written. */
  async takenOver(records: readonly SerializedRecord[]): Promise<void> {
    for (const { json } of records) {
      const { tenantId, acceptedAtMs } = JSON.parse(json) as Record<string, unknown>;
      if (typeof tenantId !== "string" || typeof acceptedAtMs !== "number") continue;
      const month = monthOf(acceptedAtMs);
      this.#behind.set(`${tenantId} ${month}`, { tenantId, month });
    }
    await this.#makeUp();
  }

  /** Gives what is not behind any more. */
  async #makeUp(): Promise<Set<string>> {
    const done = new Set<string>();
    for (const [key, { tenantId, month }] of [...this.#behind]) {
      try {
        const total = (await this.#options.readMonthTotals(month, tenantId)).get(tenantId) ?? 0;
        await this.#options.counters.raiseMonth(tenantId, month, total);
        this.#behind.delete(key);
        done.add(key);
      } catch (error) {
        this.#options.onProblem(error as Error);
        break;
      }
    }
    return done;
  }
}
