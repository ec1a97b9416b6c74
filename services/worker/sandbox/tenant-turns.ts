/** Runs tasks: of each tenant one at a time, in order, and of all no more than `atOnce`. A tenant whose task takes long holds up none but its own. */
export class TenantTurns {
  readonly #atOnce: number;
  #running = 0;
  /** What waits, by tenant; a tenant with a task under way is in `#busy`. Tenants take turns in the order of the map. */
  readonly #waiting = new Map<string, (() => Promise<void>)[]>();
  readonly #busy = new Set<string>();

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /** Settles as the task does. */
  run<T>(tenantId: string, task: () => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const queue = this.#waiting.get(tenantId) ?? [];
    queue.push(() => task().then(resolve, reject));
    this.#waiting.set(tenantId, queue);
    this.#next();
    return promise;
  }

  #next(): void {
    for (const [tenantId, queue] of this.#waiting) {
      if (this.#running >= this.#atOnce) return;
      if (this.#busy.has(tenantId)) continue;
      const task = queue.shift();
      this.#waiting.delete(tenantId);
      // Behind all who wait.
      if (queue.length > 0) this.#waiting.set(tenantId, queue);
      if (!task) continue;
      this.#busy.add(tenantId);
      this.#running++;
      void task().finally(() => {
        this.#busy.delete(tenantId);
        this.#running--;
        this.#next();
      });
    }
  }
}
