import { shown } from "./call.mjs";
import { BadResponse, describeFault } from "./faults.mjs";
import { isResponse, sendResponse } from "./fetch-call.mjs";
import { functionUrlEvent, functionUrlResponse } from "./function-url.mjs";

const JSON_HEADERS = [["content-type", "application/json"]];
const TEXT_HEADERS = [["content-type", "text/plain; charset=utf-8"]];
const BYTES_HEADERS = [["content-type", "application/octet-stream"]];

/** Answers a call whose request is whole by a `handler(event, context[, callback])`. Never rejects. */
export async function serveHandler(call, target, context) {
  try {
    const body = call.takeBody();
    const event = call.kind === "event" ? parseEvent(body) : functionUrlEvent(call, body);
    const result = await resultOf(call, target, event, context);
    if (call.closed) return;
    if (isResponse(result)) await sendResponse(call, result);
    else if (call.kind === "event") {
      call.sendHead(200, JSON_HEADERS);
      await sendWhole(call, toJson(result));
    } else await answerHttp(call, result);
  } catch (error) {
    call.failWith(error);
  }
}

/** What the handler gives, by promise, value or callback, whichever is first. */
async function resultOf(call, target, event, context) {
  let called = false;
  let settle;
  const byCallback = new Promise((resolve, reject) => {
    settle = (error, result) => {
      if (called) {
        call.log.write(2, "[cloister] the function answered twice; the first answer counts\n");
        return;
      }
      called = true;
      if (error !== null && error !== undefined) reject(error);
      else resolve(result);
    };
  });
  const returned = target.call(event, context, settle);
  if (typeof returned?.then === "function") {
    // The promise answers even if the callback was declared; whichever comes second has nobody left to hear it.
    byCallback.catch(() => {});
    return Promise.race([byCallback, returned]);
  }
  if (called || (target.arity >= 3 && returned === undefined)) return byCallback;
  return returned;
}

async function answerHttp(call, result) {
  if (typeof result === "string") {
    call.sendHead(200, TEXT_HEADERS);
    await sendWhole(call, Buffer.from(result));
  } else if (result instanceof Uint8Array || result instanceof ArrayBuffer) {
    call.sendHead(200, BYTES_HEADERS);
    await sendWhole(call, new Uint8Array(result));
  } else if (isIterator(result)) await sendPieces(call, result);
  else if (typeof result === "object" && result !== null && "statusCode" in result) {
    const { status, headers, body } = functionUrlResponse(result);
    call.sendHead(status, headers);
    await sendWhole(call, body);
  } else {
    const body = toJson(result);
    call.sendHead(200, JSON_HEADERS);
    await sendWhole(call, body);
  }
}

async function sendWhole(call, bytes) {
  if (call.method !== "HEAD") {
    const sent = call.sendBody(bytes);
    if (sent !== true) await sent;
  }
  call.end();
}

/** A generator or a stream, not an array or a map, which are data. */
const isIterator = (value) =>
  typeof value === "object" &&
  value !== null &&
  (typeof value[Symbol.asyncIterator] === "function" ||
    (typeof value.next === "function" && typeof value[Symbol.iterator] === "function"));

async function sendPieces(call, pieces) {
  for await (const piece of pieces) {
    if (typeof piece !== "string" && !(piece instanceof Uint8Array))
      throw new BadResponse(
        `The handler gave a piece that is ${shown(piece)}. Use text or Uint8Array.`,
      );
    if (!call.headSent)
      call.sendHead(200, typeof piece === "string" ? TEXT_HEADERS : BYTES_HEADERS);
    if (!(await call.sendBody(typeof piece === "string" ? Buffer.from(piece) : piece))) break;
  }
  if (!call.headSent) call.sendHead(200, BYTES_HEADERS);
  call.end();
}

function parseEvent(body) {
  try {
    return JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.length).toString());
  } catch (error) {
    throw Object.assign(new Error(`The event is not JSON: ${error.message}.`), {
      name: "BadEvent",
    });
  }
}

/** A handler's result as JSON; nothing is null. */
export function toJson(value) {
  let text;
  try {
    text = JSON.stringify(value === undefined ? null : value);
  } catch (error) {
    const reason = describeFault(error, "function_bad_response").message;
    throw new BadResponse(`The handler's result cannot be written as JSON: ${reason}.`);
  }
  if (text === undefined)
    throw new BadResponse(`The handler returned a ${typeof value}, which JSON cannot hold.`);
  return Buffer.from(text);
}
