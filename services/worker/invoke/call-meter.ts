import type { MeasuredRun } from "#contracts/comparison";
import type { Lease } from "../pool/function-pool.ts";
import type { ServingSandbox, WorkReading } from "../sandbox/index.ts";
import { measuredRun } from "./compared-run.ts";
import type { InvocationOutcome } from "./context.ts";

/** What one call uses of its sandbox. */
export class CallMeter {
  cpuMs: number | undefined;
  memoryPeakBytes: number | undefined;
  work: InvocationOutcome["work"] = {};
  /** The share of lately in which the sandbox waited for a processor. */
  stalled: number | undefined;
  /** Of a call that `compares`. */
  measured: MeasuredRun | undefined;
  #before: WorkReading | undefined;

  /** The sandbox's work when the call began. */
  get before(): WorkReading | undefined {
    return this.#before;
  }

  /** The call is about to be sent; or it was `behind` another, which has ended. */
  begin(sandbox: ServingSandbox, behind: boolean): void {
    this.#before = behind ? sandbox.workBefore : sandbox.work(sandbox.invocations === 0);
  }

  /** Figures are read while they are to be had: may be called again. */
  read(lease: Lease, nodeId: string, compares: boolean): void {
    const { sandbox } = lease;
    this.cpuMs = sandbox.cpuDeltaMs();
    this.stalled = sandbox.processorWait(this.cpuMs);
    this.memoryPeakBytes ??= sandbox.memoryPeakBytes();
    if (this.#before) this.work = sandbox.workSince(this.#before);
    if (compares) this.measured ??= measuredRun(nodeId, lease, this.cpuMs, this.work);
  }
}
