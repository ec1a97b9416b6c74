import type { VersionSpec } from "#contracts/function";
import type { AssignedSandbox, SandboxLauncher } from "../sandbox/index.ts";
import type { BundleSource, Lease } from "./function-pool.ts";
import type { PreparedTarget } from "./prepared-cells.ts";

export interface SandboxPoolOptions {
  launcher: SandboxLauncher;
  bundles: BundleSource;
  /** All sandboxes of the node together, MiB. */
  memoryMb: number;
  /** A warm sandbox nobody asked for this long is ended, ms. */
  idleMs: number;
  prepared: readonly PreparedTarget[];
  /** Cells kept of any shape that was asked for within a minute; 0 keeps only `prepared`. */
  demandCells?: number;
  /** Clones that are kept waiting for the calls of one version that is in demand; 0 or absent: none. */
  clonesPerFunction?: number;
  /** Longest that one of them waits, ms. */
  cloneAgeMs?: number;
  /** Sandboxes that boot at once; more would only slow each other down. */
  maxBooting?: number;
  /** Hears what a function's sandbox says outside its answers, from its first line on. */
  observe?: (sandbox: AssignedSandbox, spec: VersionSpec) => void;
  onProblem?: (error: Error) => void;
  /** Whether all processors have work; the machine's own when absent. */
  processors?: { saturated(nowMs: number): boolean };
}

/** An invocation that waits for its sandbox. */
export interface PendingLease {
  readonly promise: Promise<Lease>;
  /** The invocation is not wanted any more; the promise then never settles. */
  cancel(): void;
}

export interface PoolStats {
  warm: number;
  busy: number;
  prepared: number;
  /** Clones that are back with their function, and that no invocation has had. */
  pooled: number;
  starting: number;
  waiting: number;
  memoryReservedMb: number;
}
