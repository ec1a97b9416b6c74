import { setTimeout } from "node:timers/promises";
import { type ForcedStart, type MeasuredRun, measuredRunSchema } from "#contracts/comparison";
import type { Path, StartKind } from "#contracts/function";
import { newId } from "#contracts/ids";
import type { InvocationJob, Phases } from "#contracts/invocation";
import type { CallTarget } from "#db/functions";
import { CloisterError, errorCode } from "#errors/catalogue";
import type { InvocationLink } from "#protocol/link";
import type { CallHandler } from "#protocol/stream";
import { answerHead } from "../invoke/answer-head.ts";
import type { CallContext, OpenCall } from "../invoke/call-context.ts";
import type { TakenCall } from "../invoke/calls.ts";
import { Delivery, type Sent } from "../invoke/delivery.ts";
import type { Admission } from "../quota/admissions.ts";
import { quotaOf } from "../quota/quota-error.ts";

export interface MeasuredRequest {
  target: CallTarget;
  kind: InvocationJob["kind"];
  head: InvocationJob["head"];
  body: InvocationJob["body"];
  path: Path;
  /** Absent: as the pool gives it. */
  start?: ForcedStart;
}

export interface MeasuredAnswer {
  status: number;
  path: Path;
  start: StartKind;
  phases: Phases;
  /** From the moment it was accepted to the last byte of the answer, less what was spent aside, ms. */
  ms: number;
  measured: MeasuredRun;
  /** The beginning of the body. */
  excerpt: string;
}

/** A worker answers within the function's own bounds, and makes a snapshot within some seconds more, ms. */
const HUNG_WORKER_GRACE_MS = 30_000;
const EXCERPT_BYTES = 200;
/** A quota that lets in again within this is waited for, s, so often. */
const LONGEST_RETRY_S = 5;
const MOST_ASKED = 10;

/** One invocation that the gateway makes itself, through the queue as any other; nobody but the one who compares sees its answer. */
export class MeasuredCall implements CallHandler, TakenCall, OpenCall {
  readonly id = newId("inv");
  deadlineMs = 0;
  readonly #context: CallContext;
  readonly #timeoutMs: number;
  readonly #answer = Promise.withResolvers<MeasuredAnswer>();
  #admission: Admission | undefined;
  readonly #delivery: Delivery;
  #beganMs = performance.now();
  #finished = false;
  #head: ReturnType<typeof answerHead>;
  #excerpt = "";

  constructor(context: CallContext, timeoutMs: number) {
    this.#context = context;
    this.#timeoutMs = timeoutMs;
    this.#delivery = new Delivery(context, this);
    this.#answer.promise.catch(() => {});
    context.opened(this);
  }

  get queued(): TakenCall["queued"] {
    return this.#delivery.queued;
  }

  /** Rejects with a CloisterError; `signal` ends it with `invocation_cancelled`. */
  async run(request: MeasuredRequest, signal: AbortSignal): Promise<MeasuredAnswer> {
    const cancel = (): void => this.fail(new CloisterError("invocation_cancelled"));
    signal.addEventListener("abort", cancel);
    try {
      if (signal.aborted) cancel();
      await this.#admit(request, signal);
      if (!this.#finished) this.#enqueue(request);
      return await this.#answer.promise;
    } catch (error) {
      this.fail(error);
      throw error;
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /** Asks the quota. Whoever compares may be over a rate for a moment, which is waited for: it is no part of the run. */
  async #admit({ target, path }: MeasuredRequest, signal: AbortSignal): Promise<void> {
    for (let asked = 1; !this.#finished; asked++)
      try {
        const admission = await this.#context.admissions.enter(target, path, this.id);
        if (this.#finished) admission?.release();
        else this.#admission = admission;
        return;
      } catch (error) {
        const quota = error instanceof CloisterError ? quotaOf(error) : undefined;
        const soon = quota && quota.limit !== 0 && quota.retryAfterS <= LONGEST_RETRY_S;
        if (!soon || asked === MOST_ASKED) throw error;
        // Aborted, it is over at once.
        await setTimeout(quota.retryAfterS * 1000, undefined, { signal }).catch(() => {});
      }
  }

  #enqueue({ target, kind, head, body, path, start }: MeasuredRequest): void {
    const compare = start === undefined ? {} : { start };
    const sent: Sent = { id: this.id, kind, head, bodyFollows: false, wantedPath: path, compare };
    if (body) sent.body = body;
    this.#beganMs = performance.now();
    this.#delivery.begin(sent, target, path, 0);
  }

  attach(link: InvocationLink, streamId: number): void {
    this.#delivery.attach(link, streamId, this.#timeoutMs + HUNG_WORKER_GRACE_MS);
  }

  waitedTooLong(): void {
    this.fail(new CloisterError("queue_timeout"));
  }

  fail(cause: unknown): void {
    const error = cause instanceof CloisterError ? cause : new CloisterError("internal");
    if (this.#finish(error)) this.#answer.reject(error);
  }

  onHead(raw: Record<string, unknown>): void {
    this.#head = answerHead(raw);
    if (!this.#head) this.fail(new CloisterError("internal", "That is no answer's head"));
    else this.#delivery.answered(this.#head.meta);
  }

  onData(bytes: Buffer): void {
    if (this.#excerpt.length < EXCERPT_BYTES)
      this.#excerpt = (this.#excerpt + bytes.toString("utf8", 0, EXCERPT_BYTES)).slice(
        0,
        EXCERPT_BYTES,
      );
    this.#delivery.stream?.consumed(bytes.length);
  }

  onEnd(trailer: Record<string, unknown>): void {
    this.#delivery.whole(trailer);
    const tookMs = performance.now() - this.#beganMs;
    const head = this.#head;
    const measured = measuredRunSchema.safeParse(trailer.measured);
    if (!head || !measured.success) {
      this.fail(
        new CloisterError("internal", "The worker did not tell what it measured; is it older?"),
      );
      return;
    }
    if (!this.#finish(undefined)) return;
    const phases = trailer.phases as Phases | undefined;
    this.#answer.resolve({
      status: head.status,
      path: head.meta.path,
      start: head.meta.start,
      phases: { ...head.meta.phases, ...phases },
      ms: Math.max(0, tookMs - measured.data.asideMs),
      measured: measured.data,
      excerpt: this.#excerpt,
    });
  }

  onError({ code, message }: Record<string, unknown>): void {
    this.#delivery.recorded();
    const detail = typeof message === "string" && message !== "" ? message.slice(0, 1000) : "";
    this.fail(new CloisterError(errorCode(code), detail || undefined));
  }

  onDown(): void {
    this.#delivery.down();
  }

  /** False when it had ended before. */
  #finish(error: CloisterError | undefined): boolean {
    if (this.#finished) return false;
    this.#finished = true;
    this.#delivery.end(error?.code);
    this.#admission?.release();
    this.#context.closed(this, {
      code: error?.code,
      durationMs: performance.now() - this.#beganMs,
      meta: this.#head?.meta,
    });
    return true;
  }
}
