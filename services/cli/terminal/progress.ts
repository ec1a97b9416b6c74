/** What takes longer than this shows that it goes on, ms. */
const SILENT_MS = 1000;

/**
 * Runs `work` and tells on stderr that it goes on once it takes over a second: on a terminal a line with the seconds, which goes again; elsewhere
 * one plain line.
 */
export async function withProgress<T>(what: string, work: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const terminal = process.stderr.isTTY === true && process.env.TERM !== "dumb";
  let shown = false;
  const timer = setInterval(() => {
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    if (terminal) process.stderr.write(`\r${what} … ${seconds} s`);
    else if (!shown) process.stderr.write(`${what} …\n`);
    shown = true;
  }, SILENT_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    if (shown && terminal) process.stderr.write("\r\x1b[K");
  }
}
