import { functionError } from "./function-error.ts";
import type { ServingSandbox } from "./sandbox.ts";

/** One request of a tool that needs no streaming. */
export interface WholeRequest {
  kind?: "http" | "event";
  method?: string;
  path?: string;
  headers?: [string, string][];
  /** At most 256 KiB: what a stream takes without credit. */
  body?: Uint8Array;
  timeoutMs?: number;
  memoryMb?: number;
}

export interface WholeAnswer {
  status: number;
  headers: [string, string][];
  body: Buffer;
  /** What the function printed meanwhile. */
  log: string;
  handlerMs: number | undefined;
}

let next = 1;

/**
 * Invokes and collects the whole answer: for benchmarks and tests, which drive sandboxes without gateway and queue. Rejects with the
 * function's error, why the sandbox ended, or after `timeoutMs` (then the sandbox is ended).
 */
export function wholeAnswer(
  sandbox: ServingSandbox,
  request: WholeRequest = {},
): Promise<WholeAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<WholeAnswer>();
  const {
    kind = "http",
    method = "GET",
    path = "/",
    headers = [],
    body,
    timeoutMs = 10_000,
  } = request;
  const chunks: Buffer[] = [];
  let log = "";
  let head: { status: number; headers: [string, string][] } = { status: 0, headers: [] };
  const timer = setTimeout(() => {
    reject(new Error(`No answer within ${timeoutMs} ms`));
    void sandbox.end();
  }, timeoutMs);
  const stream = sandbox.invoke(
    {
      id: `inv_direct${next++}`,
      kind,
      method,
      url: `http://localhost${path}`,
      path,
      headers,
      deadlineMs: timeoutMs,
      hasBody: body !== undefined && body.length > 0,
    },
    {
      head: (raw) => {
        head = {
          status: Number(raw.status),
          headers: (raw.headers ?? []) as [string, string][],
        };
      },
      data: (bytes) => {
        chunks.push(Buffer.from(bytes));
        stream.consumed(bytes.length);
      },
      end: (trailer) => {
        clearTimeout(timer);
        const handlerMs = typeof trailer.handlerMs === "number" ? trailer.handlerMs : undefined;
        resolve({ ...head, body: Buffer.concat(chunks), log, handlerMs });
      },
      error: (raw) => {
        clearTimeout(timer);
        reject(functionError(raw, "function_error"));
      },
      log: (_fd, text) => {
        log += text.toString("utf8");
      },
      credit() {},
      down: () => {
        clearTimeout(timer);
        sandbox.exitError(request.memoryMb ?? 0).then(reject, reject);
      },
    },
  );
  if (body && body.length > 0) stream.sendData(Buffer.from(body));
  stream.endBody();
  return promise;
}
