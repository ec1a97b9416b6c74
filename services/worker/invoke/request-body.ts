import type { InvocationJob } from "#contracts/invocation";
import type { ReplyStream } from "../reply/reply-link.ts";
import { Pump, type RunnerStream } from "../sandbox/index.ts";
import { inlineBody } from "./job-body.ts";

/** The body of a request on its way to the runner: out of the job, or in pieces from the gateway. */
export class RequestBody {
  /** That have come so far. */
  bytes = 0;
  readonly #follows: boolean;
  readonly #inline: Buffer | undefined;
  #runner: RunnerStream | undefined;
  #pump: Pump | undefined;
  #ended = false;

  constructor(job: InvocationJob) {
    this.#follows = job.bodyFollows;
    this.#inline = job.bodyFollows ? undefined : inlineBody(job);
  }

  /** Whether the runner is to wait for one. */
  get exists(): boolean {
    return this.#follows || this.#inline !== undefined;
  }

  /** Of one that comes in pieces, nobody could send again what was sent. */
  get isGone(): boolean {
    return this.#follows && this.bytes > 0;
  }

  /** Sends what there is of it, and from now on what comes. */
  sendTo(runner: RunnerStream): void {
    this.#runner = runner;
    if (this.#follows) {
      this.#pump?.resume();
      if (this.#ended) this.#endAt(runner);
      return;
    }
    if (this.#inline) {
      this.bytes = this.#inline.length;
      runner.sendData(this.#inline);
    }
    runner.endBody();
  }

  /** The runner is gone; another may come. */
  detach(): void {
    this.#runner = undefined;
  }

  /** A piece from the gateway. */
  data(bytes: Buffer, reply: ReplyStream): void {
    this.bytes += bytes.length;
    this.#pump ??= new Pump(reply, {
      // Without a sandbox yet, the window of the reply link bounds what is held here.
      credit: () => this.#runner?.credit ?? 0,
      sendData: (data) => this.#runner?.sendData(data),
    });
    this.#pump.push(bytes);
  }

  /** The gateway has sent all. */
  end(): void {
    this.#ended = true;
    if (this.#runner) this.#endAt(this.#runner);
  }

  /** The runner takes more. */
  resume(): void {
    this.#pump?.resume();
  }

  stop(): void {
    this.#pump?.stop();
  }

  #endAt(runner: RunnerStream): void {
    if (this.#pump) this.#pump.whenDrained(() => runner.endBody());
    else runner.endBody();
  }
}
