import { CloisterError } from "#errors/catalogue";
import type { JobState } from "#queue/outbox";
import type { Calls, TakenCall } from "./calls.ts";

/** A worker announces what it takes within some ms; after this it must have, ms. */
const ANNOUNCE_MS = 2000;

/**
 * Finds calls whose job nobody will ever serve: one that a worker took and died with before it announced itself, or one that Redis
 * has lost. Looks only when something broke; otherwise the queue's own bound holds.
 */
export class LostJobs {
  readonly #calls: Calls<TakenCall>;

  constructor(calls: Calls<TakenCall>) {
    this.#calls = calls;
  }

  /** A worker's link broke. */
  workerLost(): void {
    void this.#look("active", () => new CloisterError("worker_lost"));
  }

  /** Redis was away. */
  queueLost(): void {
    void this.#look(
      "gone",
      () => new CloisterError("dependency_unavailable", "The queue has lost the request"),
    );
  }

  /** Fails the calls whose job is in `state` now and after a worker would have announced it. */
  async #look(state: JobState, error: () => CloisterError): Promise<void> {
    const suspects = await this.#among(this.#calls.values(), state);
    if (suspects.length === 0) return;
    setTimeout(() => {
      const waiting = suspects.filter((call) => this.#calls.get(call.id) === call);
      void this.#among(waiting, state).then((lost) => {
        for (const call of lost) if (this.#calls.get(call.id) === call) call.fail(error());
      });
    }, ANNOUNCE_MS).unref();
  }

  async #among(calls: TakenCall[], state: JobState): Promise<TakenCall[]> {
    const found: TakenCall[] = [];
    for (const call of calls) {
      const { queued } = call;
      if (!queued) continue;
      // Without Redis nothing can be told, and its return is a reason to look again.
      const now = await queued.state().catch(() => undefined);
      // One that has gone to another node meanwhile is not lost.
      if (now === state && call.queued === queued) found.push(call);
    }
    return found;
  }
}
