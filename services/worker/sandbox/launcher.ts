import type { FunctionConfig, Path, Runtime, VersionSpec } from "#contracts/function";
import type { BundleRef, InitMessage } from "./loaded-function.ts";
import type { AssignedSandbox, BootedSandbox } from "./sandbox.ts";

export type { BundleRef, InitMessage } from "./loaded-function.ts";

/** What a sandbox is made of and limited to; two invocations may share a prepared cell only if theirs are equal. */
export interface SandboxShape {
  kind: Path;
  image: Runtime;
  memoryMb: number;
  cpuMilli: number;
  pids: number;
  tmpMb: number;
}

/** Makes sandboxes. sandboxd is the one for production; the bare process exists for benchmarks. */
export interface SandboxLauncher {
  /** A sandbox whose runner has booted and which has no function yet. Rejects with a CloisterError; then nothing is left. */
  prepare(shape: SandboxShape, label: string): Promise<BootedSandbox>;
  /**
   * A sandbox made for one bundle: booted, or on its way back with its function loaded. `spec` tells which function it is, so that the runner hears of it while
   * it boots. Rejects with a CloisterError; then nothing is left.
   */
  launch(
    shape: SandboxShape,
    label: string,
    bundle: BundleRef,
    spec?: VersionSpec,
  ): Promise<AssignedSandbox>;
  /** Whether `launch` would bring it back with its function loaded, which is faster than anything that waits without one. */
  restores?(shape: SandboxShape, spec: VersionSpec): boolean;
  /** Has that made possible in the background, unless it is, is on its way, or failed lately. `launch` does so by itself. */
  wantSnapshot?(shape: SandboxShape, spec: VersionSpec): void;
  /**
   * A sandbox as from `launch`, or nothing: undefined where `launch` would have to boot it. `warmTurns`: how often its runner rehearses a call with its own code before it is
   * back, for a sandbox that no call waits for.
   */
  bringBack?(
    shape: SandboxShape,
    label: string,
    bundle: BundleRef,
    spec: VersionSpec,
    warmTurns?: number,
  ): Promise<AssignedSandbox | undefined>;
}

/** Rehearsals of a clone that is to wait: a call with a body and one without. More touched nothing that the first answer was faster by. */
export const CLONE_WARM_TURNS = 2;

const BASE_SHAPE = { cpuMilli: 1000, pids: 128, tmpMb: 64 } as const;

export const shapeFor = (
  config: Pick<FunctionConfig, "runtime" | "memoryMb">,
  kind: Path = "container",
): SandboxShape => ({
  ...BASE_SHAPE,
  kind,
  image: config.runtime,
  memoryMb: config.memoryMb,
});

export const shapeOf = (spec: VersionSpec, kind: Path): SandboxShape => shapeFor(spec.config, kind);

export function initOf(spec: VersionSpec): InitMessage {
  const { config } = spec;
  return {
    function: spec.name,
    version: spec.version,
    ...(config.entry === undefined ? {} : { entry: config.entry }),
    env: config.env,
    memoryMb: config.memoryMb,
    timeoutMs: config.timeoutMs,
  };
}
