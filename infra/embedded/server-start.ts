import type { ChildProcess } from "node:child_process";
import type { Readable } from "node:stream";
import { childEnd, endChild } from "./process-life.ts";

/** A server this machine runs for Cloister alone. */
export interface EmbeddedServer {
  /** What the services connect to. */
  url: string;
  child: ChildProcess;
  /** Ends it cleanly: what it accepted is on disk. Resolves when it has ended; safe to call again. */
  stop(): Promise<void>;
}

/** Output kept to explain a start that failed, characters. */
const TAIL_CHARS = 4096;

/**
 * Waits for a line of output that matches. Every line goes to `onLine`, for as long as the child lives. When the child ends first or takes
 * longer than `boundMs`, rejects with the end of its output and sees to it that it is gone.
 */
export async function readyLine(
  child: ChildProcess,
  name: string,
  ready: RegExp,
  boundMs: number,
  onLine: (line: string) => void,
): Promise<void> {
  let tail = "";
  let timer: NodeJS.Timeout | undefined;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  eachLine([child.stdout, child.stderr], (line) => {
    tail = `${tail}${line}\n`.slice(-TAIL_CHARS);
    onLine(line);
    if (ready.test(line)) resolve();
  });
  const said = () => (tail.trim() === "" ? "It said nothing." : `It said:\n${tail.trim()}`);
  child.once("error", (error) => reject(new Error(`${name} did not start: ${error.message}`)));
  void childEnd(child).then(({ code, signal }) =>
    reject(new Error(`${name} ended with ${code ?? signal} before it was ready. ${said()}`)),
  );
  timer = setTimeout(
    () => reject(new Error(`${name} was not ready after ${boundMs} ms. ${said()}`)),
    boundMs,
  );
  try {
    await promise;
  } catch (error) {
    await endChild(child, [{ signal: "SIGKILL", boundMs: 5000 }]);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Calls `onLine` with each line of the streams; one without an end is cut at 64 KiB. */
export function eachLine(
  streams: readonly (Readable | null)[],
  onLine: (line: string) => void,
): void {
  for (const stream of streams) {
    if (!stream) continue;
    let rest = "";
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > 65_536) lines.push(rest.slice(0, 65_536));
      if (rest.length > 65_536) rest = "";
      for (const line of lines) onLine(line);
    });
    stream.on("end", () => {
      if (rest !== "") onLine(rest);
      rest = "";
    });
  }
}
