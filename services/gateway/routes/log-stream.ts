import { CloisterError } from "#errors/catalogue";
import type { GatewayContext } from "../gateway-context.ts";

/** A comment this often tells proxies, and us, whether the reader is still there, ms. */
const KEEP_ALIVE_MS = 15_000;
/** What a slow reader has not taken, at most, bytes; more is left out and said so. */
const MAX_UNREAD_BYTES = 1024 * 1024;
/** Redis must confirm the subscription within this, ms. */
const SUBSCRIBE_MS = 5000;

/** What a stream's source may do with it. */
export interface EventSink {
  /** Sends one event, or counts it as left out while the reader is behind. */
  say: (data: unknown) => void;
  /** Ends the stream; `say` hears of it no more. */
  end: () => void;
}

/** An event stream of what is published on a channel. Resolves when Redis listens, so that no later line is missed. */
export const followLog = (
  gateway: Pick<GatewayContext, "subscriber" | "drained">,
  channel: string,
  ended: () => void,
): Promise<Response> =>
  eventStream(
    gateway.drained,
    async ({ say }) => {
      const end = await gateway.subscriber.subscribe(channel, say);
      return () => void end();
    },
    ended,
  );

/**
 * An event stream of what `attach` says to it. It ends with the reader, with the gateway's drain, or by its source; what `attach` gives back is
 * called then, and after it `ended`. Rejects with `dependency_unavailable` when there is no source in time.
 */
export async function eventStream(
  drained: AbortSignal,
  attach: (sink: EventSink) => Promise<() => void>,
  ended: () => void,
): Promise<Response> {
  const encoder = new TextEncoder();
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  let over = false;
  let leftOut = false;
  const write = (text: string): void => {
    if (!controller) return;
    if ((controller.desiredSize ?? 0) <= 0) leftOut = true;
    else {
      if (leftOut) controller.enqueue(encoder.encode("event: left-out\ndata: {}\n\n"));
      leftOut = false;
      controller.enqueue(encoder.encode(text));
    }
  };
  const say = (data: unknown): void => write(`data: ${JSON.stringify(data)}\n\n`);
  let detach: () => void;
  try {
    const attached = attach({ say, end: () => end() });
    // Of a source that comes too late nobody hears.
    attached.then((late) => over && late()).catch(() => {});
    detach = await inTime(attached);
  } catch {
    over = true;
    ended();
    throw new CloisterError("dependency_unavailable", "The queue cannot be reached");
  }
  let timer: NodeJS.Timeout | undefined;
  const close = (): void => {
    if (over) return;
    over = true;
    controller = undefined;
    clearInterval(timer);
    drained.removeEventListener("abort", end);
    detach();
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
        write(": listening\n\n");
        timer = setInterval(() => write(": still here\n\n"), KEEP_ALIVE_MS);
        drained.addEventListener("abort", end);
        if (drained.aborted) end();
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
