import type { VersionSpec } from "#contracts/function";
import {
  FunctionSnapshots,
  type FunctionSnapshotsOptions,
  sandboxdCode,
} from "./function-snapshots.ts";
import type { BundleRef, SandboxLauncher, SandboxShape } from "./launcher.ts";
import type { AssignedSandbox, BootedSandbox } from "./sandbox.ts";
import type { SandboxdLauncher } from "./sandboxd-launcher.ts";
import { SnapshotStore } from "./snapshot-store.ts";

export interface RestoringLauncherOptions {
  /** A snapshot could not be made, or not be brought back; the sandbox is booted instead. */
  onProblem?: (error: Error) => void;
  /** Snapshots of functions too. Absent: only those of runners without one. */
  functions?: FunctionSnapshotsOptions;
}

/** After a failure nobody tries again for this long, ms. */
const RETRY_MS = 60_000;

interface Shape {
  making?: Promise<string>;
  retryAtMs: number;
}

/**
 * Brings micro-VMs back from snapshots instead of booting them: from one of their function, else from one of a booted runner without a function, of which
 * there is one per shape. The first of each is booted; the snapshot is made beside it. Containers are passed on.
 */
export class RestoringLauncher implements SandboxLauncher {
  readonly #inner: SandboxdLauncher;
  readonly #options: RestoringLauncherOptions;
  readonly #shapes = new Map<string, Shape>();
  readonly #store: SnapshotStore;
  readonly functions: FunctionSnapshots | undefined;

  constructor(inner: SandboxdLauncher, options: RestoringLauncherOptions = {}) {
    this.#inner = inner;
    this.#options = options;
    this.#store = new SnapshotStore(
      (id) => inner.forget(id),
      (key) => this.functions?.lost(key),
    );
    if (options.functions)
      this.functions = new FunctionSnapshots(inner, this.#store, options.functions);
  }

  /** Whether `launch` would bring it back with its function. */
  restores(shape: SandboxShape, spec: VersionSpec): boolean {
    return shape.kind === "microvm" && this.functions?.has(shape, spec) === true;
  }

  /** One of the function, so that its next start is from it. */
  wantSnapshot(shape: SandboxShape, spec: VersionSpec): void {
    if (shape.kind === "microvm") this.functions?.want(shape, spec);
  }

  async prepare(shape: SandboxShape, label: string): Promise<BootedSandbox> {
    const restored = await this.#restore(shape, label);
    return restored ? restored.heldBy(this.#inner) : this.#inner.prepare(shape, label);
  }

  async launch(
    shape: SandboxShape,
    label: string,
    bundle: BundleRef,
    spec?: VersionSpec,
  ): Promise<AssignedSandbox> {
    if (spec) {
      const returning = await this.bringBack(shape, label, bundle, spec);
      if (returning) {
        this.#haveBare(shape);
        return returning;
      }
    }
    const restored = await this.#restore(shape, label, bundle);
    const assigned = restored
      ? restored.alreadyAssigned()
      : await this.#inner.launch(shape, label, bundle, spec);
    // After the one that somebody waits for.
    if (spec) this.wantSnapshot(shape, spec);
    return assigned;
  }

  /** Sees to it that there is a snapshot of a shape; resolves with its id. Rejects with why there is none. */
  freeze(shape: SandboxShape): Promise<string> {
    const key = keyOf(shape);
    const held = this.#store.use(key);
    if (held !== undefined) return Promise.resolve(held);
    const known = this.#shape(key);
    known.making ??= this.#make(key, shape).then(
      (snapshot) => {
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
    this.#store.clear();
    this.#shapes.clear();
    this.functions?.clear();
  }

  /**
   * A sandbox from the function's snapshot, which may be asked at once; undefined where there is none that works. With `warmTurns` of its runner's own
   * code it is back later, and has then touched what a call touches.
   */
  async bringBack(
    shape: SandboxShape,
    label: string,
    bundle: BundleRef,
    spec: VersionSpec,
    warmTurns = 0,
  ): Promise<AssignedSandbox | undefined> {
    const { functions } = this;
    if (!functions || shape.kind !== "microvm") return undefined;
    const snapshot = functions.use(shape, spec);
    if (snapshot === undefined) return undefined;
    const broken = (error: Error): void => {
      // Another image, for one, makes snapshots unknown; a new one does not have that fault.
      const again = sandboxdCode(error) === "unknown_snapshot";
      functions.broken(shape, spec, snapshot, error, again);
      this.#problem(error);
    };
    try {
      const created = await this.#inner.create(shape, label, bundle, { snapshot }, warmTurns);
      created.whenAnswered(() => functions.answered(snapshot, created.id));
      return created.returning(broken);
    } catch (error) {
      if (!isOwnLimit(error)) broken(error as Error);
      return undefined;
    }
  }

  /** A sandbox from the shape's snapshot; undefined where it is to be booted. */
  async #restore(
    shape: SandboxShape,
    label: string,
    bundle?: BundleRef,
  ): Promise<BootedSandbox | undefined> {
    if (shape.kind !== "microvm") return undefined;
    const key = keyOf(shape);
    const known = this.#shape(key);
    const snapshot = this.#store.use(key);
    if (snapshot === undefined) {
      if (performance.now() >= known.retryAtMs) this.freeze(shape).catch(this.#problem);
      return undefined;
    }
    try {
      const created = await this.#inner.create(shape, label, bundle, { snapshot });
      return await created.booted();
    } catch (error) {
      // Nothing of the function has run yet. Whatever is wrong with the snapshot, a booted sandbox does not need it.
      if (this.#store.drop(key, snapshot)) known.retryAtMs = performance.now() + RETRY_MS;
      this.#problem(error);
      return undefined;
    }
  }

  /** sandboxd gets micro-VMs ready by one without a function, in which there is nothing of anybody. */
  #haveBare(shape: SandboxShape): void {
    const key = keyOf(shape);
    if (this.#store.has(key) || performance.now() < this.#shape(key).retryAtMs) return;
    this.freeze(shape).catch(this.#problem);
  }

  readonly #problem = (error: unknown): void => {
    this.#options.onProblem?.(error instanceof Error ? error : new Error(String(error)));
  };

  async #make(key: string, shape: SandboxShape): Promise<string> {
    await this.#store.makeRoom();
    const created = await this.#inner.create(shape, `snapshot-${shape.image}`, undefined, {
      freezable: true,
    });
    const booted = await created.booted();
    try {
      const snapshot = await this.#inner.freeze(booted.id);
      this.#store.add(key, snapshot);
      return snapshot.id;
    } finally {
      await booted.end();
    }
  }

  #shape(key: string): Shape {
    let known = this.#shapes.get(key);
    if (!known) {
      known = { retryAtMs: 0 };
      this.#shapes.set(key, known);
    }
    return known;
  }
}

/** Of a runner without a function: nothing of any tenant is in it. */
const keyOf = (shape: SandboxShape): string => JSON.stringify(shape);

/** There are as many sandboxes as there may be, or sandboxd ends: that is no fault of a snapshot. */
const isOwnLimit = (error: unknown): boolean =>
  ["too_many_sandboxes", "draining", "isolation_unavailable"].includes(String(sandboxdCode(error)));
