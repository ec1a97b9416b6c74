import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";

/** A comment this often tells proxies, and us, whether the reader is still there, ms. */
const KEEP_ALIVE_MS = 15_000;
/** What a slow reader has not taken, at most, bytes; more is left out and said so. */
const MAX_UNREAD_BYTES = 1024 * 1024;
/** Redis must confirm the subscription within this, ms. */
const SUBSCRIBE_MS = 5000;

/** An event stream of what is published on a channel. Resolves when Redis listens, so that no later line is missed. */
export async function followLog(
  gateway: Pick<GatewayContext, "subscriber" | "drained">,
  channel: string,
  ended: () => void,
): Promise<Response> {
  const encoder = new TextEncoder();
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  let leftOut = false;
  const say = (text: string): void => {
    if (!controller) return;
    if ((controller.desiredSize ?? 0) <= 0) leftOut = true;
    else {
      if (leftOut) controller.enqueue(encoder.encode("event: left-out\ndata: {}\n\n"));
      leftOut = false;
      controller.enqueue(encoder.encode(text));
    }
  };
  const listener = (message: unknown): void => say(`data: ${JSON.stringify(message)}\n\n`);
  let unsubscribe: () => Promise<void>;
  try {
    unsubscribe = await inTime(gateway.subscriber.subscribe(channel, listener));
  } catch {
    ended();
    throw new CloisterError("dependency_unavailable", "The queue cannot be reached");
  }
  let timer: NodeJS.Timeout | undefined;
  const close = (): void => {
    if (!controller) return;
    controller = undefined;
    clearInterval(timer);
    gateway.drained.removeEventListener("abort", end);
    void unsubscribe();
    ended();
  };
  const end = (): void => {
    const open = controller;
    close();
    open?.close();
  };
  const stream = new ReadableStream<Uint8Array>(
    {
      start(made) {
        controller = made;
        say(": listening\n\n");
        timer = setInterval(() => say(": still here\n\n"), KEEP_ALIVE_MS);
        gateway.drained.addEventListener("abort", end);
        if (gateway.drained.aborted) end();
      },
      cancel: close,
    },
    new ByteLengthQueuingStrategy({ highWaterMark: MAX_UNREAD_BYTES }),
  );
  return new Response(stream, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}

async function inTime<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("Redis did not answer")), SUBSCRIBE_MS);
  });
  promise.catch(() => {});
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
