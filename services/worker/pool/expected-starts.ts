import type { Path, StartKind, VersionSpec } from "#contracts/function";
import type { PathState } from "#contracts/placement";
import { type SandboxLauncher, shapeOf } from "../sandbox/index.ts";
import type { FunctionPool } from "./function-pool.ts";
import type { PreparedCells } from "./prepared-cells.ts";

/** What the pool would give calls now. Asking changes nothing. */
export class ExpectedStarts {
  readonly #find: (spec: VersionSpec, path: Path) => FunctionPool | undefined;
  readonly #cells: PreparedCells;
  readonly #launcher: SandboxLauncher;

  constructor(
    find: (spec: VersionSpec, path: Path) => FunctionPool | undefined,
    cells: PreparedCells,
    launcher: SandboxLauncher,
  ) {
    this.#find = find;
    this.#cells = cells;
    this.#launcher = launcher;
  }

  /** How a call of a version would start, and whether at once. */
  expected(spec: VersionSpec, path: Path): PathState {
    const entry = this.#find(spec, path)?.open.findLast(({ sandbox }) => sandbox.alive);
    if (entry) return { start: entry.firstStart ?? "warm", ready: true };
    return { start: this.next(spec, path), ready: false };
  }

  /** How one would that finds no sandbox open. */
  next(spec: VersionSpec, path: Path): StartKind {
    const shape = shapeOf(spec, path);
    if (this.#launcher.restores?.(shape, spec)) return "restored";
    return this.#cells.startOf(shape) ?? "cold";
  }
}
