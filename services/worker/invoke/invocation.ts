import type { MeasuredRun } from "#contracts/comparison";
import type { StartKind, VersionSpec } from "#contracts/function";
import type {
  InvocationJob,
  InvocationStatus,
  LogEntry,
  Phases,
  ReplyMeta,
} from "#contracts/invocation";
import { lostRecord } from "#contracts/lost-record";
import type { Placement, Refusal, TenantPolicy } from "#contracts/placement";
import { CloisterError, type ErrorCode } from "#errors/catalogue";
import { recordedPlacement, refusalError } from "../placement/placer.ts";
import type { Lease } from "../pool/function-pool.ts";
import type { PendingLease } from "../pool/sandbox-pool.ts";
import { TraceLog } from "../records/trace-log.ts";
import type { CallerHandler, ReplyLink, ReplyStream } from "../reply/reply-link.ts";
import {
  type AnswerHandler,
  functionError,
  heldAgainstLimit,
  Pump,
  type RunnerStream,
  type WorkReading,
} from "../sandbox/index.ts";
import { checkAnswerHead } from "./answer-head.ts";
import { acquireFor, measuredRun } from "./compared-run.ts";
import type { InvocationContext, InvocationOutcome } from "./context.ts";
import { type InvocationSpans, spansOf } from "./invocation-spans.ts";
import { statusOf } from "./invocation-status.ts";
import { inlineBody, requestOf } from "./job-body.ts";

/** A runner that was told to cancel is given this long before its sandbox is ended, ms. */
const CANCEL_GRACE_MS = 1000;
/** Sandboxes that go down before they are back from their snapshot are replaced this often. */
const MAX_REPLACEMENTS = 2;

/** Wall clock in ms with fractions, comparable between processes of one machine. */
const wallMs = (): number => performance.timeOrigin + performance.now();
const sinceMs = (began: number): number => round(performance.now() - began);
const round = (ms: number): number => Math.round(ms * 1000) / 1000;

/**
 * One invocation, from the queue to its record. It sits between two connections, hears both, and ends exactly once for its
 * caller (`#finish`) and exactly once for its sandbox (`#letGo`); either may come first.
 */
export class Invocation implements AnswerHandler, CallerHandler {
  readonly #context: InvocationContext;
  readonly #job: InvocationJob;
  readonly #done = Promise.withResolvers<void>();
  readonly #phases: Phases = {};
  #spec: VersionSpec | undefined;
  #placement: Placement | undefined;
  #explained: Placement | Refusal | undefined;
  #reply: ReplyStream | undefined;
  #pending: PendingLease | undefined;
  #lease: Lease | undefined;
  #start: StartKind | undefined;
  #sandboxId: string | undefined;
  #runner: RunnerStream | undefined;
  #requestPump: Pump | undefined;
  #answerPump: Pump | undefined;
  #timer: NodeJS.Timeout | undefined;
  #finished = false;
  #acquireAt = 0;
  #invokedAt = 0;
  #replaced = 0;
  #readyAt: number | undefined;
  #headAt = 0;
  #httpStatus: number | undefined;
  #requestBytes = 0;
  #responseBytes = 0;
  #bodyEnded = false;
  #cpuMs: number | undefined;
  #memoryPeakBytes: number | undefined;
  #workBefore: WorkReading | undefined;
  #trace: TraceLog | undefined;
  #work: InvocationOutcome["work"] = {};
  readonly #spans: InvocationSpans | undefined;
  #measured: MeasuredRun | undefined;
  #stalled: number | undefined;

  constructor(context: InvocationContext, job: InvocationJob) {
    this.#context = context;
    this.#job = job;
    this.#spans = spansOf(context.tracing, job);
  }

  get id(): string {
    return this.#job.id;
  }

  /** Resolves when the caller has the whole answer, an error, or is gone. Never rejects. */
  run(): Promise<void> {
    const now = wallMs();
    this.#phases.queue_ms = round(Math.max(0, now - this.#job.acceptedAtMs));
    if (now >= this.#job.expiresAtMs) {
      // Its gateway has told the caller and recorded it, unless it was killed meanwhile.
      this.#context.records.record(lostRecord(this.#job, "queue_timeout", this.#context.nodeId));
      return Promise.resolve();
    }
    const link = this.#context.links.get(this.#job.replyTo);
    if (link instanceof Promise)
      link.then(
        (open) => this.#open(open),
        (error: Error) => {
          // Whoever held the caller cannot be reached, so nobody is left to be told.
          this.#context.onProblem?.(error);
          this.#finish("cancelled", "worker_lost");
        },
      );
    else this.#open(link);
    return this.#done.promise;
  }

  #open(link: ReplyLink): void {
    this.#reply = link.open(this.#job.id, this);
    if (this.#job.bodyFollows) this.#reply.announce();
    const { versions, policies } = this.#context;
    const spec = versions.cached(this.#job.versionId);
    const policy = policies.cached(this.#job.tenantId);
    if (spec && policy) this.#place(spec, policy);
    else
      Promise.all([
        spec ?? versions.load(this.#job.versionId),
        policy ?? policies.load(this.#job.tenantId),
      ]).then(
        ([loaded, known]) => this.#place(loaded, known),
        (error: Error) => this.#fail(error),
      );
  }

  #place(spec: VersionSpec, policy: TenantPolicy): void {
    if (this.#finished) return;
    this.#spec = spec;
    const began = performance.now();
    try {
      if (spec.tenantId !== this.#job.tenantId)
        throw new CloisterError("internal", "The job's tenant is not the version's");
      const placed = this.#context.placer.place(spec, policy, this.#job.wantedPath);
      this.#explained = placed;
      if ("refused" in placed) throw refusalError(placed);
      this.#placement = placed;
      this.#phases.place_ms = sinceMs(began);
      if (this.#job.trace && this.#placement.path !== "microvm")
        throw new CloisterError(
          "trace_unavailable",
          `This call runs on the path ${this.#placement.path}, where nobody sees system calls`,
        );
      this.#acquire(spec);
    } catch (error) {
      this.#fail(error);
    }
  }

  #acquire(spec: VersionSpec): void {
    const began = performance.now();
    this.#acquireAt = began;
    const now = wallMs();
    const latest = Math.min(
      this.#job.expiresAtMs,
      this.#job.acceptedAtMs + this.#context.queueWaitMs,
    );
    const { path } = this.#placement as Placement;
    const got = acquireFor(this.#context, this.#job, spec, path, latest - now);
    if (!("promise" in got)) {
      this.#phases.acquire_ms = sinceMs(began);
      this.#begin(spec, got);
      return;
    }
    this.#pending = got;
    this.#reply?.announce();
    got.promise.then(
      (lease) => {
        this.#pending = undefined;
        this.#phases.acquire_ms = round(sinceMs(began) - (lease.asideMs ?? 0));
        for (const [name, ms] of Object.entries(lease.phases))
          this.#phases[name as keyof Phases] = round(ms);
        if (this.#finished) lease.release(true);
        else this.#begin(spec, lease);
      },
      (error: Error) => {
        this.#pending = undefined;
        this.#phases.acquire_ms = sinceMs(began);
        this.#fail(error);
      },
    );
  }

  #begin(spec: VersionSpec, lease: Lease): void {
    if (!this.#job.trace) {
      this.#invoke(spec, lease);
      return;
    }
    const trace = new TraceLog((stream, text) => this.#log(stream, text));
    this.#trace = trace;
    lease.sandbox
      .startTrace((line) => trace.line(line))
      .then(
        () => {
          this.#lease = lease;
          if (this.#finished) this.#letGo(true);
          else this.#invoke(spec, lease);
        },
        (error: Error) => {
          lease.release(true);
          this.#fail(error);
        },
      );
  }

  #invoke(spec: VersionSpec, lease: Lease): void {
    const job = this.#job;
    this.#lease = lease;
    this.#start = lease.start;
    this.#sandboxId = lease.sandbox.id;
    const body = inlineBody(job);
    const { timeoutMs } = spec.config;
    this.#workBefore = lease.sandbox.work(true);
    this.#invokedAt = performance.now();
    let runner: RunnerStream;
    try {
      const hasBody = job.bodyFollows || body !== undefined;
      const headers = this.#spans?.headers() ?? job.head.headers;
      runner = lease.sandbox.invoke(requestOf(job, headers, timeoutMs, hasBody), this);
    } catch (error) {
      this.#letGo(true);
      this.#fail(error);
      return;
    }
    this.#runner = runner;
    this.#boundBy(timeoutMs, lease);
    if (job.bodyFollows) {
      this.#requestPump?.resume();
      if (this.#bodyEnded) this.#endBody();
      return;
    }
    if (body) {
      this.#requestBytes = body.length;
      runner.sendData(body);
    }
    runner.endBody();
  }

  /** The function's time begins when it can see the call; until it is back from its snapshot the sandbox itself is bounded. */
  #boundBy(timeoutMs: number, lease: Lease): void {
    const begin = (): void => {
      if (this.#finished || this.#lease !== lease) return;
      this.#timer = setTimeout(() => this.#timedOut(timeoutMs), timeoutMs);
    };
    if (lease.sandbox.returning) lease.sandbox.back.then(begin, () => {});
    else begin();
  }

  /** When the function could see the call. */
  #servedFrom(): number {
    return Math.max(this.#invokedAt, this.#readyAt ?? 0);
  }

  // What the gateway says.

  requestData(bytes: Buffer): void {
    if (this.#finished) {
      this.#reply?.consumed(bytes.length);
      return;
    }
    this.#requestBytes += bytes.length;
    const reply = this.#reply as ReplyStream;
    this.#requestPump ??= new Pump(reply, {
      // Without a sandbox yet, the window of the reply link bounds what is held here.
      credit: () => this.#runner?.credit ?? 0,
      sendData: (data) => this.#runner?.sendData(data),
    });
    this.#requestPump.push(bytes);
  }

  requestEnd(): void {
    this.#bodyEnded = true;
    if (this.#runner) this.#endBody();
  }

  answerCredit(): void {
    this.#answerPump?.resume();
  }

  callerGone(lost: boolean): void {
    if (this.#finished) return;
    this.#reply = undefined;
    this.#pending?.cancel();
    this.#finish("cancelled", lost ? "worker_lost" : "invocation_cancelled");
    this.#stopRunner();
  }

  // What the runner says.

  head(raw: Record<string, unknown>): void {
    if (this.#finished) return;
    const head = checkAnswerHead(raw);
    if (typeof head === "string") {
      this.#fail(new CloisterError("function_bad_response", head));
      this.#stopRunner();
      return;
    }
    this.#headAt = performance.now();
    this.#noteStart();
    this.#phases.handler_ms = round(this.#headAt - this.#servedFrom());
    this.#httpStatus = head.status;
    const meta: ReplyMeta = {
      path: (this.#placement as Placement).path,
      start: this.#start as StartKind,
      version: (this.#spec as VersionSpec).version,
      phases: this.#phases,
    };
    this.#reply?.head({ status: head.status, headers: head.headers, meta });
  }

  data(bytes: Buffer): void {
    const runner = this.#runner as RunnerStream;
    if (this.#finished || !this.#reply) {
      // Nobody reads it, but the runner may go on until its CANCEL arrives.
      runner.consumed(bytes.length);
      return;
    }
    const reply = this.#reply;
    this.#answerPump ??= new Pump(runner, {
      credit: () => reply.credit,
      sendData: (data) => reply.sendData(data),
    });
    this.#responseBytes += bytes.length;
    this.#answerPump.push(bytes);
  }

  end(trailer: Record<string, unknown>): void {
    this.#letGo(true);
    if (this.#finished) return;
    const handlerMs = typeof trailer.handlerMs === "number" ? round(trailer.handlerMs) : undefined;
    const finish = (): void => {
      if (this.#finished) return;
      this.#phases.reply_ms = sinceMs(this.#headAt);
      this.#reply?.end({
        ...(handlerMs === undefined ? {} : { handlerMs }),
        ...(this.#stalled === undefined ? {} : { stalled: this.#stalled }),
        // The head has told the phases, but for the last one; only a comparison shows that.
        ...(this.#job.compare ? { phases: this.#phases } : {}),
        ...(this.#measured ? { measured: this.#measured } : {}),
      });
      this.#finish("ok");
    };
    if (this.#answerPump) this.#answerPump.whenDrained(finish);
    else finish();
  }

  error(raw: Record<string, unknown>): void {
    const refused = this.#lease?.sandbox.memoryRefused(this.#workBefore) === true;
    // An ERROR ends the invocation, not the sandbox, unless the runner says that it is about to exit.
    this.#letGo(raw.exiting !== true);
    if (this.#finished) return;
    const { memoryMb } = (this.#spec as VersionSpec).config;
    this.#fail(heldAgainstLimit(functionError(raw, "function_error"), refused, memoryMb));
  }

  log(fd: 1 | 2, text: Buffer): void {
    this.output(fd, text.toString("utf8"));
  }

  /** Output of this invocation, in frames or raw. */
  output(fd: 1 | 2, text: string): void {
    this.#log(fd === 1 ? "stdout" : "stderr", text);
  }

  #log(stream: LogEntry["stream"], text: string): void {
    const spec = this.#spec;
    if (!spec) return;
    this.#context.records.log({
      tenantId: spec.tenantId,
      functionId: spec.functionId,
      invocationId: this.#job.id,
      version: spec.version,
      atMs: Date.now(),
      stream,
      text: text.endsWith("\n") ? text.slice(0, -1) : text,
    });
  }

  credit(): void {
    this.#requestPump?.resume();
  }

  down(): void {
    const lease = this.#lease;
    if (!lease) return;
    const unseen = lease.sandbox.returning;
    this.#letGo(false);
    if (this.#finished) return;
    clearTimeout(this.#timer);
    // The function has not seen the call, so another sandbox may have it, unless a part of its body is gone.
    if (unseen && !this.#bodyIsGone && this.#replaced++ < MAX_REPLACEMENTS) {
      this.#runner = undefined;
      this.#start = undefined;
      try {
        this.#acquire(this.#spec as VersionSpec);
      } catch (error) {
        this.#fail(error);
      }
      return;
    }
    lease.sandbox
      .exitError((this.#spec as VersionSpec).config.memoryMb, this.#workBefore)
      .then((error) => this.#fail(error));
  }

  /** Of a body that comes in pieces, nobody could send again what was sent. */
  get #bodyIsGone(): boolean {
    return this.#job.bodyFollows && this.#requestBytes > 0;
  }

  // Endings.

  #endBody(): void {
    const runner = this.#runner as RunnerStream;
    if (this.#requestPump) this.#requestPump.whenDrained(() => runner.endBody());
    else runner.endBody();
  }

  #timedOut(timeoutMs: number): void {
    if (this.#finished) return;
    this.#fail(
      new CloisterError("function_timeout", `The function did not end within ${timeoutMs} ms`),
    );
    const sandbox = this.#lease?.sandbox;
    if (!sandbox) return;
    if (sandbox.invocations > 1) {
      // Others are served in the same sandbox: it goes when they are done, or now if it does not even hear CANCEL.
      this.#runner?.cancel();
      setTimeout(() => this.#endSandbox(), CANCEL_GRACE_MS).unref();
    } else this.#endSandbox();
  }

  /** Tells the runner that nobody listens; a sandbox whose runner does not obey soon is ended. */
  #stopRunner(): void {
    if (!this.#lease) return;
    this.#runner?.cancel();
    setTimeout(() => {
      // With others in the same sandbox it only takes no new ones; they are not to suffer.
      if (this.#lease && this.#lease.sandbox.invocations > 1) this.#letGo(false);
      else this.#endSandbox();
    }, CANCEL_GRACE_MS).unref();
  }

  #endSandbox(): void {
    const lease = this.#lease;
    if (!lease) return;
    this.#letGo(false);
    void lease.sandbox.end();
  }

  /** Gives the sandbox back, once. */
  #letGo(keep: boolean): void {
    const lease = this.#lease;
    if (!lease) return;
    this.#noteStart();
    this.#lease = undefined;
    this.#meter(lease);
    const trace = this.#trace;
    if (!trace) {
      lease.release(keep);
      return;
    }
    // Whoever has the sandbox next is not to be traced.
    lease.sandbox.endTrace().then(() => {
      trace.end();
      lease.release(keep);
    });
  }

  /** What the start took, which is known once the sandbox is back. */
  #noteStart(): void {
    const lease = this.#lease;
    if (!lease) return;
    this.#readyAt = lease.sandbox.readyAtMs;
    if (lease.start === "warm") return;
    for (const [name, ms] of Object.entries(lease.phases))
      this.#phases[name as keyof Phases] = round(ms);
  }

  /** What placement learns of a sandbox that this call waited for. */
  #noteCost(): void {
    if (!this.#spec || !this.#placement || !this.#start || this.#start === "warm") return;
    // A comparison makes ready within its wait what is ready otherwise.
    if (this.#job.compare) return;
    if (this.#httpStatus === undefined) return;
    this.#context.placer.started(this.#spec, {
      path: this.#placement.path,
      start: this.#start,
      acquireMs: this.#servedFrom() - this.#acquireAt,
      memoryPeakBytes: this.#memoryPeakBytes,
    });
  }

  #meter(lease: Lease): void {
    const { sandbox } = lease;
    this.#cpuMs = sandbox.cpuDeltaMs();
    this.#stalled = sandbox.processorWait(this.#cpuMs);
    this.#memoryPeakBytes ??= sandbox.memoryPeakBytes();
    if (this.#workBefore) this.#work = sandbox.workSince(this.#workBefore);
    if (this.#job.compare)
      this.#measured ??= measuredRun(this.#context.nodeId, lease, this.#cpuMs, this.#work);
  }

  #fail(error: unknown): void {
    if (this.#finished) return;
    const known =
      error instanceof CloisterError
        ? error
        : new CloisterError("internal", "The worker met an error of its own");
    if (known !== error)
      this.#context.onProblem?.(error instanceof Error ? error : new Error(String(error)));
    const { type, stack, memoryPeakBytes, initMs, remedy } = known.extra;
    if (typeof initMs === "number") this.#phases.init_ms = round(initMs);
    if (typeof memoryPeakBytes === "number") this.#memoryPeakBytes = memoryPeakBytes;
    this.#answerPump?.stop();
    this.#reply?.error({
      code: known.code,
      message: known.message,
      ...(typeof type === "string" ? { type } : {}),
      ...(typeof stack === "string" ? { stack } : {}),
      ...(typeof remedy === "string" ? { remedy } : {}),
    });
    if (typeof stack === "string") this.output(2, stack);
    this.#finish(statusOf(known.code), known.code);
  }

  #finish(status: InvocationStatus, errorCode?: ErrorCode): void {
    if (this.#finished) return;
    this.#finished = true;
    clearTimeout(this.#timer);
    this.#requestPump?.stop();
    this.#answerPump?.stop();
    const durationMs = this.#invokedAt === 0 ? 0 : Math.max(0, sinceMs(this.#servedFrom()));
    // The sandbox may be let go later than the caller (or never have been); figures are read while they are to be had.
    if (this.#lease) this.#meter(this.#lease);
    this.#noteCost();
    const job = this.#job;
    const memoryMb = this.#spec?.config.memoryMb ?? 0;
    this.#context.records.record({
      id: job.id,
      tenantId: job.tenantId,
      functionId: job.functionId,
      versionId: job.versionId,
      acceptedAtMs: job.acceptedAtMs,
      finishedAtMs: wallMs(),
      status,
      ...(this.#httpStatus === undefined ? {} : { httpStatus: this.#httpStatus }),
      ...(errorCode === undefined ? {} : { errorCode }),
      ...(this.#placement ? { path: this.#placement.path } : {}),
      ...(this.#start ? { start: this.#start } : {}),
      ...recordedPlacement(this.#explained),
      phases: this.#phases,
      durationMs,
      billedMs: Math.ceil(durationMs + (this.#phases.init_ms ?? 0)),
      memoryMb,
      ...(this.#cpuMs === undefined ? {} : { cpuMs: round(this.#cpuMs) }),
      ...(this.#memoryPeakBytes === undefined ? {} : { memoryPeakBytes: this.#memoryPeakBytes }),
      requestBytes: this.#requestBytes,
      responseBytes: this.#responseBytes,
      ...(this.#sandboxId ? { sandboxId: this.#sandboxId } : {}),
      nodeId: this.#context.nodeId,
      ...this.#work,
    });
    const outcome: InvocationOutcome = {
      status,
      start: this.#start,
      phases: this.#phases,
      errorCode,
      durationMs,
      path: this.#placement?.path,
      trigger: job.kind === "http" ? "http" : "other",
      // A comparison makes ready within its wait what is ready otherwise.
      initMs:
        this.#invokedAt === 0 || job.compare ? undefined : this.#servedFrom() - this.#acquireAt,
      cpuMs: this.#cpuMs,
      memoryPeakBytes: this.#memoryPeakBytes,
      work: this.#work,
    };
    this.#context.finished?.(outcome);
    this.#spans?.end({
      outcome,
      marks: {
        acquireAt: this.#acquireAt,
        servedFrom: this.#invokedAt === 0 ? 0 : this.#servedFrom(),
        headAt: this.#headAt,
        finishedAt: performance.now(),
      },
      spec: this.#spec,
      sandboxId: this.#sandboxId,
      httpStatus: this.#httpStatus,
    });
    this.#done.resolve();
  }
}
