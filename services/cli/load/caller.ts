import { Pool } from "undici";
import { pathSchema, startKindSchema } from "#contracts/function";
import type { LoadRequest } from "#loadtests/lib/plan";
import type { Sample } from "./sample.ts";

/** One service that is called. */
export interface Target {
  label: string;
  url: string;
  /** What the names of this run's functions begin with. */
  prefix: string;
  /** Ids of the tenants that the run has made. */
  tenants: readonly string[];
  /** Of a function of the scenario. */
  addressOf(name: string): string;
  keyOf(name: string): string;
}

/** A request that takes longer has failed, ms. */
const BOUND_MS = 60_000;
/** Problems are small; of a longer answer only so much is looked at for its code, bytes. */
const MOST_PROBLEM_BYTES = 16_384;

/** Codes of errors that mean that nobody is there, or no longer. */
const CONNECTION_CODES = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** Sends requests to one target over connections that are kept. */
export class Caller {
  readonly target: Target;
  readonly #pool: Pool;
  readonly #bodies = new Map<number, Buffer>();

  constructor(target: Target) {
    this.target = target;
    this.#pool = new Pool(target.url, { headersTimeout: BOUND_MS, bodyTimeout: BOUND_MS });
  }

  /** Never rejects: whatever goes wrong is in the sample. `beganAt` is what `atMs` counts from. */
  async call(stream: string, request: LoadRequest, beganAt: number): Promise<Sample> {
    const { target } = this;
    const body = request.bodyBytes === undefined ? null : this.#body(request.bodyBytes);
    const sentAt = performance.now();
    const sample: Sample = {
      atMs: sentAt - beganAt,
      target: target.label,
      stream,
      tag: request.tag,
      function: request.function,
      outcome: "failed",
      reason: undefined,
      status: undefined,
      path: undefined,
      start: undefined,
      firstByteMs: undefined,
      totalMs: 0,
      bytesIn: 0,
      bytesOut: body?.length ?? 0,
    };
    try {
      const headers: Record<string, string> = {
        authorization: `Bearer ${target.keyOf(request.function)}`,
      };
      if (request.isolation !== undefined) headers["cloister-isolation"] = request.isolation;
      if (body) headers["content-type"] = "application/octet-stream";
      const answer = await this.#pool.request({
        method: body ? "POST" : "GET",
        path: `${target.addressOf(request.function)}${request.path}`,
        headers,
        body,
      });
      const path = pathSchema.safeParse(answer.headers["cloister-isolation"]);
      const start = startKindSchema.safeParse(answer.headers["cloister-start"]);
      if (path.success) sample.path = path.data;
      if (start.success) sample.start = start.data;
      const ok = answer.statusCode === 200;
      const echo = ok && request.answer === "echo" ? body : null;
      let same = true;
      let problem = "";
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        // Undici gives the head before any of the body: streaming shows in when the first piece comes.
        sample.firstByteMs ??= performance.now() - sentAt;
        if (echo) {
          const expected = echo.subarray(sample.bytesIn, sample.bytesIn + chunk.length);
          same &&= chunk.equals(expected);
        }
        if (!ok && problem.length < MOST_PROBLEM_BYTES) problem += chunk.toString("utf8");
        sample.bytesIn += chunk.length;
      }
      sample.status = answer.statusCode;
      sample.reason = wrongness(request, sample, same, problem, answer.headers);
      if (sample.reason === undefined) sample.outcome = ok ? "ok" : "refused";
    } catch (error) {
      sample.reason = reasonOf(error);
    }
    sample.totalMs = performance.now() - sentAt;
    return sample;
  }

  /** The same bytes for the same size, and no two halves alike. */
  #body(bytes: number): Buffer {
    let body = this.#bodies.get(bytes);
    if (!body) {
      body = Buffer.allocUnsafe(bytes);
      for (let at = 0; at < bytes; at++) body[at] = (at ^ (at >> 8) ^ (at >> 16)) & 0xff;
      this.#bodies.set(bytes, body);
    }
    return body;
  }

  /** Ends all connections; requests under way fail. */
  close(): Promise<void> {
    return this.#pool.destroy();
  }
}

/** What is wrong with an answer; undefined when it is as it should be. */
export function wrongness(
  request: LoadRequest,
  { status, path, bytesIn }: Pick<Sample, "status" | "path" | "bytesIn">,
  same: boolean,
  problem: string,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): string | undefined {
  if (status === 429 && request.mayBeRefused)
    return headers["retry-after"] === undefined ? "429 without Retry-After" : undefined;
  if (status !== 200) {
    const code = /"code":\s*"([a-z_]+)"/.exec(problem)?.[1];
    return code === undefined ? String(status) : `${status} ${code}`;
  }
  if (path === undefined) return "no Cloister-Isolation header";
  if (request.isolation !== undefined && path !== request.isolation)
    return `answered by ${path}, not by ${request.isolation}`;
  const { answer } = request;
  if (answer === "echo" && (!same || bytesIn !== request.bodyBytes))
    return "another body came back";
  if (typeof answer === "object" && bytesIn !== answer.bytes) return "an answer of another length";
  return undefined;
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  // A refused connection to a name with several addresses is an AggregateError without a code of its own.
  const inner =
    error instanceof AggregateError ? (error.errors[0] as NodeJS.ErrnoException) : undefined;
  return code ?? inner?.code ?? message;
}

/** Whether a reason says that the service is not there. */
export const isConnectionLoss = (reason: string | undefined): boolean =>
  reason !== undefined && CONNECTION_CODES.has(reason);
