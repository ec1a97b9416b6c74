import { END_OF_TRACE, type LogEntry } from "#contracts/invocation";

/** Lines of one trace that are kept, characters. */
const MAX_CHARS = 1024 * 1024;
/** Lines are put together to entries of this size, characters. */
const ENTRY_CHARS = 8192;

/** The system calls of one invocation, on their way to its log. */
export class TraceLog {
  readonly #log: (stream: LogEntry["stream"], text: string) => void;
  #left = MAX_CHARS;
  #lines = "";
  #cut = false;

  constructor(log: (stream: LogEntry["stream"], text: string) => void) {
    this.#log = log;
  }

  line(text: string): void {
    this.#left -= text.length + 1;
    if (this.#left < 0) {
      this.#cut = true;
      return;
    }
    this.#lines += `${text}\n`;
    if (this.#lines.length >= ENTRY_CHARS) this.#flush();
  }

  /** The last entry says that nothing follows. */
  end(): void {
    if (this.#cut) this.#lines += "[cloister] trace truncated after 1 MiB\n";
    this.#flush();
    this.#log("trace", END_OF_TRACE);
  }

  #flush(): void {
    if (this.#lines !== "") this.#log("trace", this.#lines);
    this.#lines = "";
  }
}
