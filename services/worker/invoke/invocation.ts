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
import { refusalError } from "../placement/placer.ts";
import type { Lease } from "../pool/function-pool.ts";
import type { PendingLease } from "../pool/sandbox-pool.ts";
import { logEntryOf } from "../records/log-entry.ts";
import { TraceLog } from "../records/trace-log.ts";
import type { CallerHandler, ReplyLink, ReplyStream } from "../reply/reply-link.ts";
import {
  type AnswerHandler,
  functionError,
  heldAgainstLimit,
  Pump,
  type RunnerStream,
} from "../sandbox/index.ts";
import { checkAnswerHead } from "./answer-head.ts";
import { CallMeter } from "./call-meter.ts";
import { round, sinceMs, wallMs } from "./clock.ts";
import { acquireFor } from "./compared-run.ts";
import type { InvocationContext, InvocationOutcome } from "./context.ts";
import { recordOf } from "./invocation-record.ts";
import { type InvocationSpans, spansOf } from "./invocation-spans.ts";
import { statusOf } from "./invocation-status.ts";
import { requestOf } from "./job-body.ts";
import { RequestBody } from "./request-body.ts";

/** A runner that was told to cancel is given this long before its sandbox is ended, ms. */
const CANCEL_GRACE_MS = 1000;
/** Sandboxes that go down before they are back from their snapshot are replaced this often. */
const MAX_REPLACEMENTS = 2;

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
  readonly #body: RequestBody;
  #answerPump: Pump | undefined;
  #timer: NodeJS.Timeout | undefined;
  #finished = false;
  #acquireAt = 0;
  #invokedAt = 0;
  #replaced = 0;
  /** It has waited in a sandbox in vain. */
  #recalled = false;
  #readyAt: number | undefined;
  #headAt = 0;
  #httpStatus: number | undefined;
  #responseBytes = 0;
  readonly #meter = new CallMeter();
  #trace: TraceLog | undefined;
  readonly #spans: InvocationSpans | undefined;

  constructor(context: InvocationContext, job: InvocationJob) {
    this.#context = context;
    this.#job = job;
    this.#body = new RequestBody(job);
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
    this.#lookUp();
  }

  #lookUp(): void {
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
    const began = this.#recalled ? this.#acquireAt : performance.now();
    this.#acquireAt = began;
    const { path } = this.#placement as Placement;
    const { bodyFollows, trace, compare } = this.#job;
    const mayQueue = !(bodyFollows || trace || compare || this.#recalled);
    const got = acquireFor(this.#context, this.#job, spec, path, this.#waitMs, mayQueue);
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
    const { timeoutMs } = spec.config;
    const behind = lease.behind === true;
    if (!behind) this.#seen(lease, performance.now());
    let runner: RunnerStream;
    try {
      const headers = this.#spans?.headers() ?? job.head.headers;
      const request = requestOf(job, headers, timeoutMs, this.#body.exists);
      runner = lease.sandbox.invoke(request, this, behind);
    } catch (error) {
      this.#letGo(true);
      this.#fail(error);
      return;
    }
    this.#runner = runner;
    if (!behind) this.#boundBy(timeoutMs, lease);
    this.#body.sendTo(runner);
  }

  /** From now on the function may see the call. */
  #seen(lease: Lease, atMs: number): void {
    this.#start = lease.start;
    this.#sandboxId = lease.sandbox.id;
    this.#invokedAt = atMs;
    this.#meter.begin(lease.sandbox, lease.behind === true);
  }

  begun(atMs: number): void {
    const lease = this.#lease;
    if (!lease) return;
    lease.begins?.(atMs);
    if (!lease.behind || this.#isSeen) {
      this.#invokedAt = atMs;
      return;
    }
    this.#phases.acquire_ms = round(atMs - this.#acquireAt);
    clearTimeout(this.#timer);
    this.#seen(lease, atMs);
    if (this.#finished) this.#stopRunner();
    else this.#boundBy((this.#spec as VersionSpec).config.timeoutMs, lease);
  }

  /** Once, so that a function which pretends wins nothing. */
  get #mayBeRecalled(): boolean {
    return this.#lease?.behind === true && !this.#recalled && this.#headAt === 0;
  }

  /** Whether code of the function may have seen it. */
  get #isSeen(): boolean {
    return this.#invokedAt > 0;
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

  /** How long it may still wait for a sandbox, or in one. */
  get #waitMs(): number {
    const { expiresAtMs, acceptedAtMs } = this.#job;
    return Math.min(expiresAtMs, acceptedAtMs + this.#context.queueWaitMs) - wallMs();
  }

  /** A function that computes without end keeps even that from its runner. */
  recalled(): void {
    this.#timer ??= setTimeout(() => {
      if (this.#isSeen) return;
      const detail = "The calls before it in its sandbox did not end in time";
      this.#fail(new CloisterError("queue_timeout", detail));
      this.#stopRunner();
    }, this.#waitMs);
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
    this.#body.data(bytes, this.#reply as ReplyStream);
  }

  requestEnd(): void {
    this.#body.end();
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
        ...(this.#meter.stalled === undefined ? {} : { stalled: this.#meter.stalled }),
        // The head has told the phases, but for the last one; only a comparison shows that.
        ...(this.#job.compare ? { phases: this.#phases } : {}),
        ...(this.#meter.measured ? { measured: this.#meter.measured } : {}),
      });
      this.#finish("ok");
    };
    if (this.#answerPump) this.#answerPump.whenDrained(finish);
    else finish();
  }

  error(raw: Record<string, unknown>): void {
    if (raw.code === "function_recalled" && this.#mayBeRecalled) {
      // It may have seemed to begin meanwhile.
      clearTimeout(this.#timer);
      this.#invokedAt = 0;
      this.#lease?.begins?.(undefined);
      this.#letGo(true);
      this.#recalled = true;
      this.#again();
      return;
    }
    const refused = this.#lease?.sandbox.memoryRefused(this.#meter.before) === true;
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
    if (this.#spec) this.#context.records.log(logEntryOf(this.#spec, stream, text, this.#job.id));
  }

  credit(): void {
    this.#body.resume();
  }

  down(): void {
    const lease = this.#lease;
    if (!lease) return;
    const unseen = lease.sandbox.returning;
    this.#letGo(false);
    if (this.#finished) return;
    clearTimeout(this.#timer);
    // The function has not seen the call, so another sandbox may have it, unless a part of its body is gone.
    this.#recalled ||= !this.#isSeen;
    const others = unseen && !this.#body.isGone && this.#replaced++ < MAX_REPLACEMENTS;
    if (others || !this.#isSeen) this.#again();
    else
      lease.sandbox
        .exitError((this.#spec as VersionSpec).config.memoryMb, this.#meter.before)
        .then((error) => this.#fail(error));
  }

  /** Its sandbox did not begin with it: another will have it. */
  #again(): void {
    if (this.#finished) return;
    this.#runner = undefined;
    this.#start = undefined;
    this.#sandboxId = undefined;
    this.#timer = undefined;
    this.#invokedAt = 0;
    this.#body.detach();
    this.#lookUp();
  }

  // Endings.

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
    if (!this.#isSeen) return;
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
    this.#read(lease);
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
      memoryPeakBytes: this.#meter.memoryPeakBytes,
    });
  }

  #read(lease: Lease): void {
    if (!this.#isSeen) return;
    this.#meter.read(lease, this.#context.nodeId, this.#job.compare !== undefined);
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
    if (typeof memoryPeakBytes === "number") this.#meter.memoryPeakBytes = memoryPeakBytes;
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
    this.#body.stop();
    this.#answerPump?.stop();
    const durationMs = this.#invokedAt === 0 ? 0 : Math.max(0, sinceMs(this.#servedFrom()));
    // The sandbox may be let go later than the caller (or never have been); figures are read while they are to be had.
    if (this.#lease) this.#read(this.#lease);
    this.#noteCost();
    const job = this.#job;
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
      cpuMs: this.#meter.cpuMs,
      memoryPeakBytes: this.#meter.memoryPeakBytes,
      work: this.#meter.work,
    };
    const record = recordOf(job, outcome, {
      httpStatus: this.#httpStatus,
      explained: this.#explained,
      memoryMb: this.#spec?.config.memoryMb ?? 0,
      requestBytes: this.#body.bytes,
      responseBytes: this.#responseBytes,
      sandboxId: this.#sandboxId,
      nodeId: this.#context.nodeId,
      finishedAtMs: wallMs(),
    });
    this.#context.records.record(record);
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
