/** The one entry to sandboxes for the worker and for benchmarks; knows neither queue nor database. */
export { exitError, heldAgainstLimit, type SandboxExit } from "./exit.ts";
export { type DataSink, type DataSource, Pump, ReceiveWindow, SendWindow } from "./flow.ts";
export { functionError } from "./function-error.ts";
export {
  FunctionSnapshots,
  type FunctionSnapshotsOptions,
  type HeldBundle,
  WARM_TURNS,
} from "./function-snapshots.ts";
export {
  type BundleRef,
  CLONE_WARM_TURNS,
  type InitMessage,
  initOf,
  type SandboxLauncher,
  type SandboxShape,
  shapeFor,
  shapeOf,
} from "./launcher.ts";
export { ProcessLauncher } from "./process-launcher.ts";
export { RestoringLauncher, type RestoringLauncherOptions } from "./restoring-launcher.ts";
export type { AnswerHandler, RunnerStream } from "./runner-link.ts";
export type {
  AssignedSandbox,
  BootedSandbox,
  CreatedSandbox,
  ServingSandbox,
} from "./sandbox.ts";
export type { SandboxObserver, StartPhases } from "./sandbox-core.ts";
export type { StatFiles, WorkReading } from "./sandbox-meter.ts";
export type { SandboxdHello } from "./sandboxd-control.ts";
export { SandboxdLauncher, type SandboxdLauncherOptions } from "./sandboxd-launcher.ts";
export { type WholeAnswer, type WholeRequest, wholeAnswer } from "./whole-answer.ts";
