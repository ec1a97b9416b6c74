import { Worker } from "node:worker_threads";
import { CloisterError } from "#errors/catalogue";

export interface UnpackRequest {
  id: number;
  bundle: Uint8Array;
  folder: string;
}

export type UnpackAnswer =
  | { id: number; bytes: number }
  /** `bad`: the bundle is at fault, else the machine. */
  | { id: number; message: string; bad: boolean };

/** Unpacks bundles in a thread, which ends with the process. */
export class Unpacker {
  readonly #waiting = new Map<number, PromiseWithResolvers<number>>();
  #thread: Worker | undefined;
  #next = 1;

  /** As `unpackBundle` (unpack.ts): resolves with the bytes of the files, rejects with `bad_bundle` for what is no sound bundle. */
  unpack(bundle: Uint8Array, folder: string): Promise<number> {
    const request: UnpackRequest = { id: this.#next++, bundle, folder };
    const waiting = Promise.withResolvers<number>();
    this.#waiting.set(request.id, waiting);
    const thread = this.start();
    thread.ref();
    thread.postMessage(request);
    return waiting.promise;
  }

  /** Starts the thread ahead of the first bundle, which would wait for it. */
  start(): Worker {
    this.#thread ??= this.#launch();
    return this.#thread;
  }

  #launch(): Worker {
    const thread = new Worker(new URL("./unpack-thread.ts", import.meta.url));
    thread.on("message", (answer: UnpackAnswer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (this.#waiting.size === 0) thread.unref();
      if ("bytes" in answer) waiting?.resolve(answer.bytes);
      else
        waiting?.reject(
          answer.bad ? new CloisterError("bad_bundle", answer.message) : new Error(answer.message),
        );
    });
    const gone = (error: Error): void => {
      if (this.#thread === thread) this.#thread = undefined;
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    thread.on("error", gone);
    thread.on("exit", () => gone(new Error("The thread that unpacks bundles ended")));
    // Only what it has to do holds the process; listening for messages would.
    thread.unref();
    return thread;
  }
}
