const MAX_MESSAGE_BYTES = 4096;
const MAX_STACK_BYTES = 16_384;
/** This runner's own files say nothing to the author of a function. */
const OWN_FRAME = `${import.meta.url.slice(0, import.meta.url.lastIndexOf("/"))}/`;

/** What a function answered is no answer. */
export class BadResponse extends Error {
  name = "BadResponse";
}

/** There is nothing to load, or it cannot be loaded here. */
export class LoadFailed extends Error {
  name = "LoadFailed";
}

/** The module was loaded and exports nothing that can be called. */
export class NoHandler extends Error {
  name = "NoHandler";
}

/** An ERROR payload without a stack. */
export const plainFault = (type, message, code) => ({ type, message, stack: "", code });

export const cancelledFault = () =>
  plainFault("AbortError", "The invocation was cancelled.", "function_cancelled");

/** Of a call that waited behind others, and that no code of the function has seen. */
export const recalledFault = () =>
  plainFault("Recalled", "The call had not begun.", "function_recalled");

/** An ERROR payload for anything that can be thrown, however odd: getters that throw, proxies, no error at all. */
export function describeFault(thrown, code) {
  if (!(thrown instanceof Error) && typeof thrown !== "object")
    return plainFault(typeof thrown, cut(String(thrown), MAX_MESSAGE_BYTES), code);
  const type = textOf(() => thrown.name) || textOf(() => thrown.constructor.name) || "Error";
  const message = textOf(() => thrown.message) || textOf(() => JSON.stringify(thrown)) || type;
  const stack = textOf(() => thrown.stack);
  const cause = textOf(() => thrown.cause?.stack);
  return {
    type: cut(type, 256),
    message: cut(message, MAX_MESSAGE_BYTES),
    stack: cut(ownFramesLeftOut(cause ? `${stack}\nCaused by: ${cause}` : stack), MAX_STACK_BYTES),
    code: thrown instanceof BadResponse ? "function_bad_response" : code,
  };
}

function textOf(read) {
  try {
    const text = read();
    return typeof text === "string" ? text : "";
  } catch {
    return "";
  }
}

function ownFramesLeftOut(stack) {
  // Cut before it is split: a stack may be of any length.
  const lines = stack.slice(0, 4 * MAX_STACK_BYTES).split("\n");
  return lines.filter((line) => !line.includes(OWN_FRAME)).join("\n");
}

/** The longest start of `text` that is at most `bytes` long in UTF-8. */
function cut(text, bytes) {
  const start = text.slice(0, bytes);
  if (Buffer.byteLength(start) <= bytes) return start;
  let end = bytes;
  const encoded = Buffer.from(start);
  while ((encoded[end] & 0xc0) === 0x80) end--;
  return encoded.toString("utf8", 0, end);
}
