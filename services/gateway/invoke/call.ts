import { isUtf8 } from "node:buffer";
import type { ServerResponse } from "node:http";
import type { Path } from "#contracts/function";
import { LIMITS } from "#contracts/function";
import { newId } from "#contracts/ids";
import type { InvocationJob, Phases, ReplyMeta } from "#contracts/invocation";
import { pathsExcess } from "#contracts/quota";
import type { CallTarget } from "#db/functions";
import { CloisterError, errorCode } from "#errors/catalogue";
import { BodySender } from "#protocol/bodies";
import type { InvocationLink } from "#protocol/link";
import type { CallHandler, CallStream } from "#protocol/stream";
import { asCloisterError, problemHeaders, problemOf } from "../problem.ts";
import type { Admission } from "../quota/admissions.ts";
import { quotaExceeded } from "../quota/quota-error.ts";
import { answerHead, clientHeaders, serverTiming } from "./answer-head.ts";
import { AnswerWriter, lingerAfter } from "./answer-writer.ts";
import type { CallContext, CallOutcome } from "./call-context.ts";
import { CallSpan } from "./call-span.ts";
import type { TakenCall } from "./calls.ts";
import { Delivery, type Sent } from "./delivery.ts";
import type { RequestBody } from "./request-body.ts";

/** What a function is called with; the body comes beside it. */
export interface CallRequest {
  kind: InvocationJob["kind"];
  target: CallTarget;
  head: InvocationJob["head"];
  wantedPath: Path | undefined;
  trace?: boolean;
}

/** A worker answers within the function's own bounds; one that has not this long after them hangs, ms. */
const HUNG_WORKER_GRACE_MS = 10_000;

/**
 * One HTTP request and the invocation behind it. It hears the client and the worker and ends exactly once; until `started`, every
 * failure is a problem+json answer, afterwards it is a broken connection.
 */
export class Call implements CallHandler, TakenCall {
  readonly id = newId("inv");
  deadlineMs = 0;
  readonly #context: CallContext;
  readonly #response: ServerResponse;
  readonly #writer: AnswerWriter;
  readonly #beganMs = performance.now();
  #target: CallTarget | undefined;
  #pieces: AsyncIterable<Buffer> | undefined;
  #sender: BodySender | undefined;
  readonly #delivery: Delivery;
  /** The quota has been asked and has not answered. */
  #asking = false;
  #admission: Admission | undefined;
  /** From the request's head until the quota let it in, without the wait for its body; undefined where no quota was asked. */
  #admitMs: number | undefined;
  #meta: ReplyMeta | undefined;
  #status = 0;
  readonly #span: CallSpan | undefined;
  #finished = false;

  constructor(context: CallContext, response: ServerResponse) {
    this.#context = context;
    this.#response = response;
    this.#delivery = new Delivery(context, this);
    this.#writer = new AnswerWriter(response, {
      taken: (bytes) => this.#delivery.stream?.consumed(bytes),
      broken: (reason) => this.#broken(new CloisterError("function_bad_response", reason)),
    });
    if (context.tracing) this.#span = new CallSpan(context.tracing, response.req);
    response.once("close", () => this.#clientGone());
    context.opened(this);
  }

  get finished(): boolean {
    return this.#finished;
  }

  get queued(): TakenCall["queued"] {
    return this.#delivery.queued;
  }

  /** The function is known: from now on the call has a bound. */
  found(target: CallTarget): void {
    this.#target = target;
    this.#admitMs = performance.now() - this.#beganMs;
    if (!this.#finished) this.#context.calls.add(this);
  }

  /** Sends the invocation on its way to a worker, once its tenant's quota lets it in. */
  enqueue(request: CallRequest, body: RequestBody): void {
    if (this.#finished) return;
    const { target, wantedPath } = request;
    let entering: Promise<Admission> | undefined;
    try {
      entering = this.#context.admissions.enter(target, wantedPath, this.id);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (!entering) {
      this.#add(request, body);
      return;
    }
    const askedMs = performance.now();
    this.#asking = true;
    entering.then(
      (admission) => {
        this.#asking = false;
        if (this.#finished) {
          admission.release();
          return;
        }
        this.#admission = admission;
        this.#admitMs = (this.#admitMs ?? 0) + performance.now() - askedMs;
        this.#add(request, body);
      },
      (error: unknown) => this.fail(error),
    );
  }

  #add({ kind, target, head, wantedPath, trace }: CallRequest, body: RequestBody): void {
    const sent: Sent = { id: this.id, kind, head, bodyFollows: false };
    if (wantedPath !== undefined) sent.wantedPath = wantedPath;
    if (trace) sent.trace = true;
    if ("pieces" in body) this.#pieces = body.pieces;
    else if (body.whole.length > LIMITS.inlineBodyBytes) this.#pieces = oneByOne(body.whole);
    else if (body.whole.length > 0) sent.body = inJson(body.whole);
    sent.bodyFollows = this.#pieces !== undefined;
    this.#span?.into(sent);
    const bytes = "whole" in body ? body.whole.length : 0;
    try {
      this.#delivery.begin(sent, target, wantedPath, bytes);
    } catch (error) {
      this.fail(error);
    }
  }

  attach(link: InvocationLink, streamId: number): void {
    const boundMs = (this.#target?.config.timeoutMs ?? 0) + HUNG_WORKER_GRACE_MS;
    const stream = this.#delivery.attach(link, streamId, boundMs);
    if (this.#pieces) this.#sendBody(stream, this.#pieces);
  }

  waitedTooLong(): void {
    if (this.#asking) {
      this.fail(
        new CloisterError("dependency_unavailable", "The quota could not be checked in time"),
      );
      return;
    }
    this.fail(
      this.#delivery.begun
        ? new CloisterError(
            "queue_timeout",
            `No worker took the request within ${this.#context.queueWaitMs} ms`,
          )
        : new CloisterError(
            "request_timeout",
            `The body did not arrive within ${this.#context.queueWaitMs} ms`,
          ),
    );
  }

  /** Ends the call with an error, unless it has ended. */
  fail(cause: unknown): void {
    if (this.#finished) return;
    const error = asCloisterError(cause, this.#context.onProblem);
    this.#finish(error);
    if (error.code === "quota_exceeded" && this.#target && !this.#context.draining())
      this.#context.refusals.inTurn(this.#target.tenantId, () => this.#answer(error));
    else this.#answer(error);
  }

  /** An answer that cannot be sent may turn out so after it is whole. */
  #broken(error: CloisterError): void {
    if (this.#finished) this.#answer(error);
    else this.fail(error);
  }

  #answer(error: CloisterError): void {
    const response = this.#response;
    if (response.destroyed) return;
    if (this.#writer.started || response.headersSent) {
      // The status has gone out: a connection that breaks is the only error left.
      response.destroy();
      return;
    }
    const text = JSON.stringify(problemOf(error, this.id));
    const headers = problemHeaders(error).flat();
    headers.push("cloister-invocation-id", this.id);
    this.#tellLimits(headers);
    if (this.#target) headers.push("cloister-version", String(this.#target.version));
    headers.push("server-timing", this.#timing({}));
    if (this.#span) headers.push("traceresponse", this.#span.traceresponse);
    headers.push("content-length", String(Buffer.byteLength(text)));
    if (this.#context.draining()) headers.push("connection", "close");
    response.writeHead(error.status, headers);
    response.end(text);
    lingerAfter(response);
  }

  // What the worker says.

  onHead(raw: Record<string, unknown>): void {
    if (this.#finished) return;
    const head = answerHead(raw);
    if (!head) {
      this.fail(new CloisterError("internal", "The worker passed on something that is no answer"));
      return;
    }
    const headers = clientHeaders(head);
    const { meta } = head;
    this.#meta = meta;
    this.#status = head.status;
    this.#delivery.answered(meta);
    headers.flat.push(
      ...["cloister-invocation-id", this.id],
      ...["cloister-isolation", meta.path],
      ...["cloister-start", meta.start],
      ...["cloister-version", String(meta.version)],
      ...["server-timing", this.#timing(meta.phases)],
    );
    if (this.#span && !headers.flat.includes("traceresponse"))
      headers.flat.push("traceresponse", this.#span.traceresponse);
    this.#tellLimits(headers.flat);
    if (this.#context.draining()) headers.flat.push("connection", "close");
    this.#writer.head(head.status, headers);
  }

  onData(bytes: Buffer): void {
    if (this.#finished) this.#delivery.stream?.consumed(bytes.length);
    else this.#writer.data(bytes);
  }

  onEnd(trailer: Record<string, unknown>): void {
    this.#delivery.whole(trailer);
    if (this.#finished) return;
    this.#finish(undefined);
    this.#writer.end();
  }

  onError(raw: Record<string, unknown>): void {
    this.#delivery.recorded();
    const { message, type, remedy } = raw;
    const paths = this.#target?.policy.paths;
    if (raw.code === "quota_exceeded" && paths) {
      // The one quota that a worker holds a call to, when it places it.
      this.fail(quotaExceeded(pathsExcess(paths)));
      return;
    }
    this.fail(
      new CloisterError(
        errorCode(raw.code),
        typeof message === "string" && message !== "" ? message.slice(0, 4096) : undefined,
        {
          ...(typeof type === "string" ? { type: type.slice(0, 256) } : {}),
          ...(typeof remedy === "string" ? { remedy: remedy.slice(0, 1024) } : {}),
        },
      ),
    );
  }

  onDown(): void {
    this.#delivery.down();
  }

  onCredit(): void {
    this.#sender?.onCredit();
  }

  onBodyUnwanted(): void {
    this.#sender?.stop();
  }

  /** What is left to a call that was let in; one that was not is told by its error. */
  #tellLimits(headers: string[]): void {
    if (!this.#admission) return;
    const { policy, limit } = this.#admission.headers;
    headers.push("ratelimit-policy", policy, "ratelimit", limit);
  }

  #timing(phases: Phases): string {
    const text = serverTiming(phases, performance.now() - this.#beganMs);
    if (!this.#admission || this.#admitMs === undefined) return text;
    return `admit;dur=${Math.round(this.#admitMs * 1000) / 1000}, ${text}`;
  }

  #sendBody(stream: CallStream, pieces: AsyncIterable<Buffer>): void {
    const sender = new BodySender(stream);
    this.#sender = sender;
    sender.send(pieces).then(
      (whole) => {
        if (whole) stream.endBody();
      },
      (error: unknown) => {
        // A client that breaks off is heard as the end of its connection.
        if (error instanceof CloisterError) this.fail(error);
      },
    );
  }

  #clientGone(): void {
    if (this.#response.writableFinished || this.#finished) return;
    this.#finish(new CloisterError("invocation_cancelled"));
  }

  /** What every ending has in common. */
  #finish(error: CloisterError | undefined): void {
    this.#finished = true;
    this.#sender?.stop();
    this.#delivery.end(error?.code);
    this.#admission?.release();
    const outcome: CallOutcome = {
      code: error?.code,
      durationMs: performance.now() - this.#beganMs,
      meta: this.#meta,
    };
    this.#context.closed(this, outcome);
    this.#span?.end(
      this.id,
      performance.timeOrigin + this.#beganMs,
      error?.status ?? this.#status,
      this.#target,
      outcome,
    );
  }
}

/** Text is shorter in JSON than base64, and most bodies are text. */
const inJson = (body: Buffer): NonNullable<InvocationJob["body"]> =>
  isUtf8(body) ? { text: body.toString("utf8") } : { base64: body.toString("base64") };

async function* oneByOne(whole: Buffer): AsyncGenerator<Buffer> {
  yield whole;
}
