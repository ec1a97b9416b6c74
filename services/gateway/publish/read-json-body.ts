import { isUtf8 } from "node:buffer";
import { CloisterError } from "#errors/catalogue";

/** A whole body of at most `maxBytes` of UTF-8, counted as it comes. Rejects with `bad_request` or `body_too_large`. */
export async function readTextBody(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
  tooLarge: string,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  // Not iterated: giving up on an iteration would break the connection before the refusal is read.
  const reader = body?.getReader();
  while (reader) {
    const { done, value: chunk } = await reader.read().catch(() => {
      throw new CloisterError("bad_request", "The body broke off");
    });
    if (done) break;
    bytes += chunk.length;
    if (bytes > maxBytes) throw new CloisterError("body_too_large", tooLarge);
    chunks.push(chunk);
  }
  const whole = Buffer.concat(chunks);
  if (!isUtf8(whole)) throw new CloisterError("bad_request", "The body is not UTF-8");
  return whole.toString("utf8");
}

/** A function as JSON, of at most `maxBytes`. Rejects with `bad_request` or `body_too_large`. */
export async function readJsonBody(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
): Promise<unknown> {
  const text = await readTextBody(
    body,
    maxBytes,
    `A JSON body is at most ${maxBytes} bytes; send larger functions as multipart/form-data`,
  );
  try {
    return JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CloisterError("bad_request", `The body is not JSON: ${why.slice(0, 200)}`);
  }
}
