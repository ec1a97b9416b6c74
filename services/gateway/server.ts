import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Duplex } from "node:stream";
import { CloisterError } from "#errors/catalogue";
import { eventSegment, type Invoker } from "./invoke/invoker.ts";
import { PROBLEM_TYPE, problemOf } from "./problem.ts";

/** A client must send its head within this, ms. */
const HEADERS_MS = 15_000;
/** The longest a function may run, and some time to send its body before, ms. */
const REQUEST_MS = 1_000_000;
/** Longer than the idle time of common load balancers (60 s), so that none sends into a closed connection, ms. */
const KEEP_ALIVE_MS = 65_000;
const MAX_HEADER_BYTES = 16_384;

/** Everything HTTP that comes in: calls of functions go to the invoker, the rest to `api`. */
export function createGatewayServer(
  invoker: Invoker,
  api: (request: IncomingMessage, response: ServerResponse) => unknown,
): Server {
  const server = createServer(
    {
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
      noDelay: true,
    },
    (request, response) => {
      const target = originForm(request.url ?? "/");
      if (target.startsWith("/f/")) {
        invoker.http(request, response, target);
        return;
      }
      const segment = request.method === "POST" ? eventSegment(target) : undefined;
      if (segment !== undefined) invoker.event(request, response, segment);
      else api(request, response);
    },
  );
  server.on("clientError", refuseMalformed);
  server.on("connect", (_request, socket: Duplex) =>
    refuse(
      socket,
      new CloisterError("method_not_allowed", "This is no proxy: CONNECT is not served"),
    ),
  );
  return server;
}

/** A request target as a path: proxies' clients send the whole URL (RFC 9112, 3.2.2). */
const originForm = (target: string): string =>
  target.startsWith("/") ? target : target.replace(/^https?:\/\/[^/?#]*/i, "") || "/";

/** What Node could not read as HTTP is told so in the form of all other errors. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const cause =
    error.code === "HPE_HEADER_OVERFLOW"
      ? new CloisterError(
          "headers_too_large",
          `The address and headers are larger than ${MAX_HEADER_BYTES} bytes`,
        )
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? new CloisterError("request_timeout", "The request did not arrive in time")
        : new CloisterError("bad_request", "The request is not valid HTTP/1.1");
  refuse(socket, cause);
}

/** Answers where Node has no response to answer with. */
function refuse(socket: Duplex, cause: CloisterError): void {
  const text = JSON.stringify(problemOf(cause));
  socket.end(
    `HTTP/1.1 ${cause.status} ${STATUS_CODES[cause.status]}\r\n` +
      `content-type: ${PROBLEM_TYPE}\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
  );
}
