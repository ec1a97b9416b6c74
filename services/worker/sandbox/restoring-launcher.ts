import type { BundleRef, SandboxLauncher, SandboxShape } from "./launcher.ts";
import type { AssignedSandbox, BootedSandbox } from "./sandbox.ts";
import type { SandboxdLauncher } from "./sandboxd-launcher.ts";

export interface RestoringLauncherOptions {
  /** A snapshot could not be made, or not be brought back; the sandbox is booted instead. */
  onProblem?: (error: Error) => void;
}

/** After a failure nobody tries again for this long, ms. */
const RETRY_MS = 60_000;

interface Shape {
  snapshot?: string;
  making?: Promise<string>;
  retryAtMs: number;
}

/**
 * Brings micro-VMs back from snapshots of booted runners without a function, one per shape, instead of booting them. The first of a shape is
 * booted; the snapshot is made beside it. Containers are passed on.
 */
export class RestoringLauncher implements SandboxLauncher {
  readonly #inner: SandboxdLauncher;
  readonly #options: RestoringLauncherOptions;
  readonly #shapes = new Map<string, Shape>();

  constructor(inner: SandboxdLauncher, options: RestoringLauncherOptions = {}) {
    this.#inner = inner;
    this.#options = options;
  }

  async prepare(shape: SandboxShape, label: string): Promise<BootedSandbox> {
    const restored = await this.#restore(shape, label);
    return restored ? restored.heldBy(this.#inner) : this.#inner.prepare(shape, label);
  }

  async launch(shape: SandboxShape, label: string, bundle: BundleRef): Promise<AssignedSandbox> {
    const restored = await this.#restore(shape, label, bundle);
    return restored ? restored.alreadyAssigned() : this.#inner.launch(shape, label, bundle);
  }

  /** Sees to it that there is a snapshot of a shape; resolves with its id. Rejects with why there is none. */
  freeze(shape: SandboxShape): Promise<string> {
    const known = this.#shape(shape);
    if (known.snapshot !== undefined) return Promise.resolve(known.snapshot);
    known.making ??= this.#make(shape).then(
      (snapshot) => {
        known.snapshot = snapshot;
        delete known.making;
        return snapshot;
      },
      (error) => {
        delete known.making;
        known.retryAtMs = performance.now() + RETRY_MS;
        throw error;
      },
    );
    return known.making;
  }

  /** Snapshots go with their sandboxd: there are none any more. */
  clear(): void {
    this.#shapes.clear();
  }

  /** A sandbox from the shape's snapshot; undefined where it is to be booted. */
  async #restore(
    shape: SandboxShape,
    label: string,
    bundle?: BundleRef,
  ): Promise<BootedSandbox | undefined> {
    if (shape.kind !== "microvm") return undefined;
    const known = this.#shape(shape);
    const { snapshot } = known;
    if (snapshot === undefined) {
      if (performance.now() >= known.retryAtMs) this.freeze(shape).catch(this.#problem);
      return undefined;
    }
    try {
      const created = await this.#inner.create(shape, label, bundle, { snapshot });
      return await created.booted();
    } catch (error) {
      // Nothing of the function has run yet. Whatever is wrong with the snapshot, a booted sandbox does not need it.
      if (known.snapshot === snapshot) delete known.snapshot;
      known.retryAtMs = performance.now() + RETRY_MS;
      this.#inner.forget(snapshot).catch(() => {});
      this.#problem(error);
      return undefined;
    }
  }

  readonly #problem = (error: unknown): void => {
    this.#options.onProblem?.(error instanceof Error ? error : new Error(String(error)));
  };

  async #make(shape: SandboxShape): Promise<string> {
    const created = await this.#inner.create(shape, `snapshot-${shape.image}`, undefined, {
      freezable: true,
    });
    const booted = await created.booted();
    try {
      return await this.#inner.freeze(booted.id);
    } finally {
      await booted.end();
    }
  }

  #shape(shape: SandboxShape): Shape {
    const key = JSON.stringify(shape);
    let known = this.#shapes.get(key);
    if (!known) {
      known = { retryAtMs: 0 };
      this.#shapes.set(key, known);
    }
    return known;
  }
}
