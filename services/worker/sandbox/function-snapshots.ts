import type { VersionSpec } from "#contracts/function";
import type { SnapshotState } from "#contracts/snapshot";
import { CloisterError } from "#errors/catalogue";
import { initOf, type SandboxShape } from "./launcher.ts";
import type { BundleRef } from "./loaded-function.ts";
import type { AssignedSandbox } from "./sandbox.ts";
import type { SandboxdLauncher } from "./sandboxd-launcher.ts";
import type { Snapshot, SnapshotStore } from "./snapshot-store.ts";
import { TenantTurns } from "./tenant-turns.ts";

/** A function's files that stay where they are until they are let go. */
export interface HeldBundle extends BundleRef {
  release?(): void;
}

export interface FunctionSnapshotsOptions {
  /** The files of a bundle. */
  hold: (digest: string) => Promise<HeldBundle>;
  /** Memory for a sandbox that is made to be frozen; undefined when there is none now. Absent: there always is. */
  reserve?: (memoryMb: number) => { release(): void } | undefined;
  /** Turns of the runner's own code before it is frozen. */
  warmTurns?: number;
  /** Hears what a function says while it is loaded to be frozen. */
  observe?: (sandbox: AssignedSandbox, spec: VersionSpec) => void;
  /** A version's state is another now. */
  changed?: (spec: VersionSpec, state: SnapshotState) => void;
  /** A first answer was looked at, or could not be; whether that of another sandbox is to be. */
  looked?: (again: boolean) => void;
}

/** Enough for V8 to compile what a call runs: the first answer then touches a third fewer pages. It takes half a second. */
export const WARM_TURNS = 1000;
/** Loading, warming up and hooks together, ms. */
const SETTLE_TIMEOUT_MS = 60_000;
/** After a failure that was not the function's nobody tries again for this long, ms. */
const RETRY_MS = 60_000;
/** Tenants whose functions get ready at once: a hook that waits then holds up no other tenant, and not all processors are taken from the calls. */
const TENANTS_AT_ONCE = 4;
/** Versions whose state is remembered; those that have a snapshot are fewer. */
const MAX_VERSIONS = 2000;

interface Version {
  spec: VersionSpec;
  state: SnapshotState;
  making?: Promise<SnapshotState>;
  /** It is to be thrown away as soon as it is made. */
  unwanted?: true;
  retryAtMs: number;
}

/**
 * Snapshots of micro-VMs with their function: loaded, warm, ready to answer. One holds the code and the secrets of one version of one tenant, and serves
 * no other: what it is of is its key. Of a tenant they are made one at a time, beside the calls.
 */
export class FunctionSnapshots {
  readonly #launcher: SandboxdLauncher;
  readonly #store: SnapshotStore;
  readonly #options: FunctionSnapshotsOptions;
  readonly #versions = new Map<string, Version>();
  /** Snapshots of which sandboxd was told to learn. */
  readonly #looked = new Set<string>();
  readonly #turns = new TenantTurns(TENANTS_AT_ONCE);

  constructor(launcher: SandboxdLauncher, store: SnapshotStore, options: FunctionSnapshotsOptions) {
    this.#launcher = launcher;
    this.#store = store;
    this.#options = options;
  }

  /** Whether a sandbox of this version would come of its snapshot. */
  has(shape: SandboxShape, spec: VersionSpec): boolean {
    return this.#store.has(keyOf(shape, spec));
  }

  /** The snapshot to start from, if there is one. */
  use(shape: SandboxShape, spec: VersionSpec): string | undefined {
    return this.#store.use(keyOf(shape, spec));
  }

  /** A sandbox has given its first answer: sandboxd sees from the first two of each snapshot what those to come will touch. */
  answered(snapshot: string, sandbox: string): void {
    if (this.#looked.has(snapshot)) return;
    this.#looked.add(snapshot);
    const [oldest] = this.#looked;
    if (this.#looked.size > MAX_VERSIONS && oldest !== undefined) this.#looked.delete(oldest);
    const looked = (again: boolean): void => {
      if (again) this.#looked.delete(snapshot);
      this.#options.looked?.(again);
    };
    // Without it they come back as well, only slower. This one may have ended meanwhile: then the next is looked at.
    this.#launcher.learn(sandbox).then(looked, () => looked(true));
  }

  /** Has one made in the background, unless there is one, one is being made, or it failed lately. */
  want(shape: SandboxShape, spec: VersionSpec): void {
    const version = this.#versions.get(keyOf(shape, spec));
    if (version && performance.now() < version.retryAtMs) return;
    void this.make(shape, spec);
  }

  /** Sees to it that there is one. Resolves with what came of it, never rejects. */
  make(shape: SandboxShape, spec: VersionSpec): Promise<SnapshotState> {
    const key = keyOf(shape, spec);
    const version = this.#version(key, spec);
    if (this.#store.has(key)) return Promise.resolve(version.state);
    if (version.making) return version.making;
    const beganMs = performance.now();
    this.#tell(version, { state: "making" });
    const made = this.#turns.run(spec.tenantId, () => this.#make(key, shape, spec));
    version.making = made.then(
      ({ bytes }) => {
        delete version.making;
        version.retryAtMs = 0;
        if (version.unwanted) return this.#drop(key, version);
        return this.#tell(version, { state: "ready", bytes, ms: sinceMs(beganMs) });
      },
      (error: Error) => {
        delete version.making;
        // What the function did it would do again.
        version.retryAtMs = isLasting(error)
          ? Number.POSITIVE_INFINITY
          : performance.now() + RETRY_MS;
        const reason = error.message.slice(0, 1000);
        return this.#tell(version, { state: "failed", reason, ms: sinceMs(beganMs) });
      },
    );
    return version.making;
  }

  /** A snapshot did not do what it should. `again`: another is to be made at once. */
  broken(shape: SandboxShape, spec: VersionSpec, id: string, error: Error, again: boolean): void {
    const key = keyOf(shape, spec);
    if (!this.#store.drop(key, id)) return;
    const version = this.#version(key, spec);
    version.retryAtMs = again ? 0 : performance.now() + RETRY_MS;
    this.#tell(version, { state: "failed", reason: error.message.slice(0, 1000) });
  }

  /** Forgets what there is of a function: all of it, or what is older than a version. */
  forget(functionId: string, olderThan = Number.POSITIVE_INFINITY): void {
    this.#forgetThose((spec) => spec.functionId === functionId && spec.version < olderThan);
  }

  /** Forgets all that a tenant has. */
  forgetTenant(tenantId: string): void {
    this.#forgetThose((spec) => spec.tenantId === tenantId);
  }

  #forgetThose(matches: (spec: VersionSpec) => boolean): void {
    for (const [key, version] of this.#versions) {
      if (!matches(version.spec)) continue;
      if (version.making) version.unwanted = true;
      else this.#drop(key, version);
    }
  }

  #drop(key: string, version: Version): SnapshotState {
    this.#store.drop(key);
    this.#versions.delete(key);
    return this.#tell(version, { state: "none", reason: "It is of use no more" });
  }

  /** A snapshot had to make room for others. */
  lost(key: string): void {
    const version = this.#versions.get(key);
    if (!version) return;
    this.#tell(version, {
      state: "none",
      reason: "It had to make room for those of other functions; the next call has it made again",
    });
  }

  /** They went with their sandboxd. What failed is tried again with another. */
  clear(): void {
    const versions = [...this.#versions.values()];
    this.#versions.clear();
    this.#looked.clear();
    const reason = "sandboxd has started anew; the next call has it made again";
    for (const { spec } of versions) this.#options.changed?.(spec, { state: "none", reason });
  }

  /** What is known of each version. */
  *states(): Iterable<[VersionSpec, SnapshotState]> {
    for (const { spec, state } of this.#versions.values()) yield [spec, state];
  }

  async #make(key: string, shape: SandboxShape, spec: VersionSpec): Promise<Snapshot> {
    const { hold, reserve = () => ({ release() {} }) } = this.#options;
    const memory = reserve(shape.memoryMb);
    if (!memory)
      throw new CloisterError("capacity_exhausted", "There is no memory to make it in just now");
    let bundle: HeldBundle | undefined;
    try {
      bundle = await hold(spec.bundleDigest);
      for (;;) {
        await this.#store.makeRoom();
        try {
          const snapshot = await this.#freeze(shape, spec, bundle);
          this.#store.add(key, snapshot);
          return snapshot;
        } catch (error) {
          if (sandboxdCode(error) !== "too_many_snapshots") throw error;
          // Sizes differ from what was expected, or somebody else has some.
          if (!(await this.#store.evictOne())) throw error;
        }
      }
    } finally {
      bundle?.release?.();
      memory.release();
    }
  }

  async #freeze(shape: SandboxShape, spec: VersionSpec, bundle: BundleRef): Promise<Snapshot> {
    const label = `snapshot-${spec.name.slice(0, 40)}@${spec.version}`;
    const created = await this.#launcher.create(shape, label, bundle, { freezable: true });
    const assigned = (await created.booted()).alreadyAssigned();
    this.#options.observe?.(assigned, spec);
    const { warmTurns = WARM_TURNS } = this.#options;
    const serving = await assigned.initialise(
      { ...initOf(spec), snapshot: { warmTurns } },
      SETTLE_TIMEOUT_MS,
    );
    try {
      return await this.#launcher.freeze(serving.id);
    } finally {
      await serving.end();
    }
  }

  #tell(version: Version, state: SnapshotState): SnapshotState {
    version.state = state;
    this.#options.changed?.(version.spec, state);
    return state;
  }

  #version(key: string, spec: VersionSpec): Version {
    let version = this.#versions.get(key);
    if (!version) {
      version = { spec, state: { state: "none" }, retryAtMs: 0 };
      this.#versions.set(key, version);
      if (this.#versions.size > MAX_VERSIONS) this.#forgetOldest();
    }
    return version;
  }

  #forgetOldest(): void {
    for (const [key, { making }] of this.#versions) {
      if (making || this.#store.has(key)) continue;
      this.#versions.delete(key);
      return;
    }
  }
}

/** All that is in a snapshot's memory or decides about it. sandboxd watches the image and the monitor. */
const keyOf = (shape: SandboxShape, spec: VersionSpec): string =>
  JSON.stringify([spec.tenantId, spec.versionId, spec.bundleDigest, initOf(spec), shape]);

export const sandboxdCode = (error: unknown): unknown =>
  error instanceof CloisterError ? error.extra.sandboxd : undefined;

/** Whether trying again would end the same way: the function failed, or holds what no snapshot can. */
const isLasting = (error: Error): boolean =>
  error instanceof CloisterError &&
  (error.code.startsWith("function_") || sandboxdCode(error) === "snapshot_refused");

const sinceMs = (beganMs: number): number => Math.round(performance.now() - beganMs);
