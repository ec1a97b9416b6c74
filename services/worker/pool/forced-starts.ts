import type { ForcedStart } from "#contracts/comparison";
import type { Path, VersionSpec } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";
import type { BundleHold } from "../bundles/bundle-cache.ts";
import {
  type AssignedSandbox,
  initOf,
  type RestoringLauncher,
  type SandboxLauncher,
  shapeOf,
} from "../sandbox/index.ts";
import type { BundleSource, Lease } from "./function-pool.ts";
import type { PendingLease } from "./sandbox-pool.ts";

export interface ForcedStartsOptions {
  /** Boots, always. */
  cold: SandboxLauncher;
  restoring: Pick<RestoringLauncher, "launch" | "functions">;
  bundles: BundleSource;
  /** Memory of the pool's budget. */
  reserve(memoryMb: number): { release(): void } | undefined;
  /** Hears what a function's sandbox says outside its answers. */
  observe?: (sandbox: AssignedSandbox, spec: VersionSpec) => void;
}

/**
 * Sandboxes for comparisons, each started in the way that is asked for and ended after its one call. They come from the same launchers and the same
 * memory as the pool's, but never into the pool; a start that cannot be had is refused, no other takes its place.
 */
export class ForcedStarts {
  readonly #options: ForcedStartsOptions;

  constructor(options: ForcedStartsOptions) {
    this.#options = options;
  }

  /** What a service would have ready before a call (a booted cell, a snapshot) is made first; that time is the lease's `asideMs`. */
  acquire(spec: VersionSpec, path: Path, start: ForcedStart): PendingLease {
    const { promise, resolve, reject } = Promise.withResolvers<Lease>();
    let cancelled = false;
    this.#start(spec, path, start).then((lease) => {
      if (cancelled) lease.release(false);
      else resolve(lease);
    }, reject);
    promise.catch(() => {});
    return {
      promise,
      cancel: () => {
        cancelled = true;
        // It may have been handed over in the same turn.
        promise.then((lease) => lease.release(false)).catch(() => {});
      },
    };
  }

  async #start(spec: VersionSpec, path: Path, start: ForcedStart): Promise<Lease> {
    const { bundles, reserve, observe } = this.#options;
    const { memoryMb } = spec.config;
    const memory = reserve(memoryMb);
    if (!memory)
      throw new CloisterError(
        "capacity_exhausted",
        `A comparison ends no sandboxes of others, and ${memoryMb} MiB are not free beside them just now`,
      );
    let hold: BundleHold | undefined;
    let made = false;
    const release = (): void => {
      memory.release();
      hold?.release();
    };
    try {
      hold = await bundles.hold(spec.bundleDigest);
      const { assigned, asideMs } = await this.#launch(spec, path, start, hold);
      made = true;
      void assigned.ended.then(release);
      observe?.(assigned, spec);
      // `initialise` ends the sandbox itself when the function cannot be loaded.
      const sandbox = await assigned.initialise(initOf(spec));
      let released = false;
      return {
        sandbox,
        start,
        phases: sandbox.phases,
        asideMs,
        release: () => {
          if (released) return;
          released = true;
          void sandbox.end();
        },
      };
    } catch (error) {
      if (!made) release();
      throw error;
    }
  }

  async #launch(
    spec: VersionSpec,
    path: Path,
    start: ForcedStart,
    hold: BundleHold,
  ): Promise<{ assigned: AssignedSandbox; asideMs: number }> {
    const { cold, restoring } = this.#options;
    const shape = shapeOf(spec, path);
    const label = `compare-${spec.name.slice(0, 40)}@${spec.version}`;
    const began = performance.now();
    switch (start) {
      case "cold":
        return { assigned: await cold.launch(shape, label, hold, spec), asideMs: 0 };
      case "prepared": {
        const cell = await cold.prepare(shape, label);
        const asideMs = performance.now() - began;
        return { assigned: await cell.assign(hold, label), asideMs };
      }
      case "restored": {
        if (path !== "microvm" || !restoring.functions)
          throw new CloisterError("start_unavailable", `A ${path} is not restored`);
        const { state, reason } = await restoring.functions.make(shape, spec);
        if (state !== "ready")
          throw new CloisterError("start_unavailable", `There is no snapshot: ${reason ?? state}`);
        const asideMs = performance.now() - began;
        const assigned = await restoring.launch(shape, label, hold, spec);
        if (assigned.restored) return { assigned, asideMs };
        // One that was booted after all is no measurement of this start.
        await assigned.end();
        throw new CloisterError("start_unavailable", "Its snapshot did not bring it back");
      }
    }
  }
}
