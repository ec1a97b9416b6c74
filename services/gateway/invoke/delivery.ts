import type { Path } from "#contracts/function";
import type { InvocationJob, ReplyMeta } from "#contracts/invocation";
import type { LostCall } from "#contracts/lost-record";
import type { CallTarget } from "#db/functions";
import { CloisterError, type ErrorCode } from "#errors/catalogue";
import type { InvocationLink } from "#protocol/link";
import type { CallHandler, CallStream } from "#protocol/stream";
import type { Passage, Ticket } from "../dispatch/dispatcher.ts";
import type { CallContext } from "./call-context.ts";
import type { TakenCall } from "./calls.ts";

/** What a gateway knows of an invocation when it sends it on its way. */
export type Sent = Omit<
  InvocationJob,
  "tenantId" | "functionId" | "versionId" | "replyTo" | "acceptedAtMs" | "expiresAtMs"
>;

/**
 * The way of one call to a worker: from the gateway's queue to the end of its stream, and to the record that somebody makes of it. It tells the call by
 * `fail`, and hears of the call's end once, by `end`.
 */
export class Delivery {
  readonly #context: CallContext;
  readonly #call: CallHandler & TakenCall;
  #passage: Passage | undefined;
  #stream: CallStream | undefined;
  /** What was sent, until somebody has recorded how it ended. */
  #unrecorded: LostCall | undefined;
  #hungTimer: NodeJS.Timeout | undefined;
  #ended = false;
  /** What the call ended with. */
  #code: ErrorCode | undefined;

  constructor(context: CallContext, call: CallHandler & TakenCall) {
    this.#context = context;
    this.#call = call;
  }

  /** Whether it is on its way. */
  get begun(): boolean {
    return this.#passage !== undefined;
  }

  /** To the worker that has it. */
  get stream(): CallStream | undefined {
    return this.#stream;
  }

  get queued(): TakenCall["queued"] {
    return this.#passage?.state === "sent" ? this.#passage.queued : undefined;
  }

  /** `bytes` is what its body takes while it waits. Throws a CloisterError when no node can serve it, or too much waits. */
  begin(sent: Sent, target: CallTarget, wantedPath: Path | undefined, bytes: number): void {
    const { calls, dispatcher, queueWaitMs, replyTo } = this.#context;
    const { tenantId, functionId, versionId } = target;
    const acceptedAtMs = performance.timeOrigin + performance.now();
    const job: InvocationJob = {
      ...sent,
      tenantId,
      functionId,
      versionId,
      replyTo,
      acceptedAtMs,
      expiresAtMs: acceptedAtMs + queueWaitMs,
    };
    // Known before it is in a queue: a worker may be quicker than Redis's answer to us.
    calls.add(this.#call);
    this.#passage = dispatcher.submit(this.#ticketFor(job), target, wantedPath, bytes);
    if (this.#ended) return;
    this.#unrecorded = { id: job.id, tenantId, functionId, versionId, acceptedAtMs };
  }

  #ticketFor(job: InvocationJob): Ticket {
    return {
      job,
      fail: (error) => this.#call.fail(error),
      notQueued: (error) => {
        this.#context.onProblem(error);
        // A worker that has it nevertheless goes on answering, and records it.
        if (this.#stream) return;
        this.#unrecorded = undefined;
        this.#call.fail(new CloisterError("dependency_unavailable", "The queue cannot be reached"));
      },
    };
  }

  /** A worker has it, which answers within `boundMs` or hangs; called within the link's `invoke`. */
  attach(link: InvocationLink, streamId: number, boundMs: number): CallStream {
    this.#context.calls.remove(this.#call);
    this.#stream = link.takeCall(streamId, this.#call);
    if (this.#passage) this.#context.dispatcher.taken(this.#passage);
    this.#hungTimer = setTimeout(
      () => this.#call.fail(new CloisterError("worker_lost", "The worker has stopped answering")),
      this.#context.queueWaitMs + boundMs,
    );
    return this.#stream;
  }

  /** The head of its answer has come. */
  answered(meta: ReplyMeta): void {
    if (this.#passage) this.#context.dispatcher.answered(this.#passage, meta);
  }

  /** The worker has said how it ended, which it records before it says so. */
  recorded(): void {
    this.#unrecorded = undefined;
  }

  /** The same, of an answer that is whole. */
  whole({ stalled }: Record<string, unknown>): void {
    this.recorded();
    if (this.#passage && typeof stalled === "number" && stalled >= 0 && stalled <= 1)
      this.#context.dispatcher.stalled(this.#passage, stalled);
  }

  /** The connection to its worker is gone. A caller that has gone before waits for nothing, its record does. */
  down(): void {
    if (this.#ended) this.#recordLoss();
    else this.#call.fail(new CloisterError("worker_lost"));
  }

  /** The call is over. */
  end(code: ErrorCode | undefined): void {
    this.#ended = true;
    this.#code = code;
    clearTimeout(this.#hungTimer);
    this.#context.calls.remove(this.#call);
    if (this.#stream?.open) this.#stream.cancel();
    else this.#recordLoss();
    if (this.#passage) this.#context.dispatcher.done(this.#passage);
  }

  /** Nobody else will: the call never had a worker, or has none any more. One that did have it, after all, replaces this record. */
  #recordLoss(): void {
    if (this.#unrecorded) this.#context.lost(this.#unrecorded, this.#code ?? "worker_lost");
    this.#unrecorded = undefined;
  }
}
