import { shown } from "./call.mjs";
import { CallRequest } from "./call-request.mjs";
import { BadResponse } from "./faults.mjs";
import { isPlain, takePlain } from "./plain-response.mjs";

/** Answers a call by a `fetch(request, env, ctx)` handler. Never rejects. */
export async function serveFetch(call, target, env, ctx) {
  try {
    let response = target.call(requestOf(call), env, ctx);
    if (typeof response?.then === "function") response = await response;
    if (!isResponse(response))
      throw new BadResponse(
        `The fetch handler returned ${shown(response)}. Return a Response, or a promise of one.`,
      );
    await sendResponse(call, response);
  } catch (error) {
    call.failWith(error);
  }
}

function requestOf(call) {
  // A function may have put its own there.
  const { Request } = globalThis;
  if (CallRequest.fits(Request, call)) return new CallRequest(call);
  const { method } = call;
  const init = { method, headers: call.headers, signal: call.signal };
  if (method !== "GET" && method !== "HEAD" && call.hasBody) {
    if (call.bodyEnded) {
      if (call.bodyBytes > 0) init.body = call.takeBody();
    } else {
      init.body = requestBody(call);
      init.duplex = "half";
    }
  }
  return new Request(call.url, init);
}

/** The request body as a stream that holds no more than a window, because credit is given as it is read. */
function requestBody(call) {
  return new ReadableStream(
    {
      pull(controller) {
        if (deliver(call, controller)) return undefined;
        return new Promise((resolve) => {
          call.onBody = () => {
            if (!deliver(call, controller)) return;
            call.onBody = undefined;
            resolve();
          };
        });
      },
      cancel() {
        // Read on, so that the sender is not held back by a function that wants no more.
        const drop = () => {
          for (const piece of call.pieces.splice(0)) call.consumed(piece.length);
        };
        call.onBody = drop;
        drop();
      },
    },
    { highWaterMark: 0 },
  );
}

/** Gives the stream one piece, its end or its failure; false if there is none yet. */
function deliver(call, controller) {
  if (call.cancelled || (call.closed && !call.bodyEnded)) {
    controller.error(new DOMException("The caller went away.", "AbortError"));
    return true;
  }
  const piece = call.pieces.shift();
  if (piece) {
    controller.enqueue(piece);
    call.consumed(piece.length);
  } else if (!call.bodyEnded) return false;
  if (call.bodyEnded && call.pieces.length === 0) controller.close();
  return true;
}

/** A Response of Node, or of a library that brings its own class. */
export function isResponse(value) {
  return (
    isPlain(value) ||
    (typeof value === "object" &&
      value !== null &&
      typeof value.status === "number" &&
      typeof value.headers?.entries === "function" &&
      "body" in value)
  );
}

/** Sends a Response. Rejects with BadResponse if it cannot be sent, or with what its body throws. */
export async function sendResponse(call, response) {
  const plain = takePlain(response);
  if (plain) {
    call.sendHead(plain.status, plain.headers);
    if (plain.body && call.method !== "HEAD") {
      const sent = call.sendBody(Buffer.from(plain.body));
      if (sent !== true) await sent;
    }
    return call.end();
  }
  if (response.bodyUsed)
    throw new BadResponse("The Response's body was read before it was returned. Return a new one.");
  call.sendHead(response.status, [...response.headers]);
  const { body } = response;
  if (body !== null && body !== undefined) {
    if (call.method === "HEAD") body.cancel().catch(() => {});
    else if (!(await sendStream(call, body))) return call.end();
  }
  call.end();
}

/** Sends a ReadableStream of bytes as the caller reads it. False when nobody wants more. */
async function sendStream(call, body) {
  if (typeof body.getReader !== "function")
    throw new BadResponse(`The Response's body is ${shown(body)}. Use a ReadableStream.`);
  const reader = body.getReader();
  call.whenCancelled(() =>
    reader.cancel(new DOMException("The caller went away.", "AbortError")).catch(() => {}),
  );
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return true;
    if (!(value instanceof Uint8Array)) {
      reader.cancel().catch(() => {});
      throw new BadResponse(
        `The Response's stream gave ${shown(value)}. Enqueue Uint8Array; TextEncoder makes them of text.`,
      );
    }
    const sent = call.sendBody(value);
    if (sent !== true && !(await sent)) {
      reader.cancel().catch(() => {});
      return false;
    }
  }
}
