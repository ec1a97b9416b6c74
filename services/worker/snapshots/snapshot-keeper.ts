import type { VersionSpec } from "#contracts/function";
import type { Change, LogEntry } from "#contracts/invocation";
import type { SnapshotState } from "#contracts/snapshot";
import type { Redis } from "#queue/redis";
import { writeSnapshotState } from "#queue/snapshots";
import type { VersionCache } from "../invoke/version-cache.ts";
import { type Placer, refusalError } from "../placement/placer.ts";
import type { PolicyCache } from "../placement/policy-cache.ts";
import { type FunctionSnapshots, shapeOf } from "../sandbox/index.ts";

export interface SnapshotKeeperOptions {
  nodeId: string;
  redis: Redis;
  records: { log(entry: LogEntry): void };
  onProblem: (error: Error) => void;
}

/** What is needed to tell what a change asks for. */
export interface ChangeGround {
  versions: VersionCache;
  policies: PolicyCache;
  placer: Placer;
  functions: FunctionSnapshots | undefined;
}

/** States are told again this often, because what was told is forgotten after an hour, ms. */
const TELL_AGAIN_MS = 600_000;

/** Has snapshots made of what was published, thrown away of what was deleted or replaced, and tells everybody how far they are. */
export class SnapshotKeeper {
  readonly #options: SnapshotKeeperOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: SnapshotKeeperOptions) {
    this.#options = options;
  }

  /** Tells all `states` again from time to time. */
  start(states: () => Iterable<[VersionSpec, SnapshotState]>): void {
    this.#timer = setInterval(() => {
      for (const [spec, state] of states()) this.#tell(spec, state);
    }, TELL_AGAIN_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** A version's state is another now: everybody may know, and its owner hears of a failure in the function's log. */
  changed(spec: VersionSpec, state: SnapshotState): void {
    this.#tell(spec, state);
    if (state.state !== "failed") return;
    const { name, version, tenantId, functionId } = spec;
    const text = `[cloister] version ${version} has no snapshot, and starts without one: ${state.reason}`;
    this.#options.records.log({
      tenantId,
      functionId,
      version,
      atMs: Date.now(),
      stream: "system",
      text,
    });
    this.#options.onProblem(new Error(`no snapshot of ${name}@${version}: ${state.reason}`));
  }

  /** A function was published or deleted. Resolves when what follows from that is done; never rejects. */
  async heard(change: Change, ground: ChangeGround): Promise<void> {
    const { functions } = ground;
    if (!functions) return;
    if (change.deleted) functions.forget(change.id);
    if (typeof change.versionId !== "string") return;
    try {
      const spec = await ground.versions.load(change.versionId);
      const policy = await ground.policies.load(spec.tenantId);
      const placed = ground.placer.decide(spec, policy, undefined);
      if ("refused" in placed) throw refusalError(placed);
      const { path } = placed;
      if (path === "microvm") await functions.make(shapeOf(spec, path), spec);
      // Only now: until there is a new one, calls of the former version are as fast as they were.
      functions.forget(spec.functionId, spec.version);
    } catch (error) {
      // Whoever reads the function's state is told by the same rules.
      this.#options.onProblem(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #tell(spec: VersionSpec, state: SnapshotState): void {
    const { redis, nodeId, onProblem } = this.#options;
    writeSnapshotState(redis, spec.versionId, nodeId, state).catch(onProblem);
  }
}
