/** Marks that a sandbox may still write lines under: a call that waits may end long after its trace. */
const MAX_MARKS = 64;
const START = "\u0001";
const MARK_CHARS = 16;
const HEAD_CHARS = START.length + MARK_CHARS + 1;
/** The monitor writes no longer line: a pipe would not take it as a whole. */
const MAX_LINE_CHARS = 4096;

/**
 * Takes the lines of traces out of what a micro-VM writes to its standard error (runtime/sandboxd/README.md, `trace`). The function writes to the
 * same pipe but does not know the mark, so that it can forge no line.
 */
export class TraceFilter {
  readonly #marks = new Set<string>();
  #active: { mark: string; line: (text: string) => void } | undefined;
  /** The beginning of a line whose rest has not come. */
  #held = "";

  begin(mark: string, line: (text: string) => void): void {
    this.#marks.add(mark);
    const oldest = this.#marks.values().next().value;
    if (this.#marks.size > MAX_MARKS && oldest !== undefined) this.#marks.delete(oldest);
    this.#active = { mark, line };
  }

  /** Lines that come later are taken out all the same. */
  end(): void {
    this.#active = undefined;
  }

  /** Gives what is no trace. */
  pass(text: string): string {
    if (this.#marks.size === 0) return text;
    let left = this.#held + text;
    this.#held = "";
    let passed = "";
    for (;;) {
      const at = left.indexOf(START);
      if (at < 0) return passed + left;
      passed += left.slice(0, at);
      left = left.slice(at);
      if (this.#mayBegin(left)) {
        const end = left.indexOf("\n");
        if (end < 0 && left.length < MAX_LINE_CHARS) {
          this.#held = left;
          return passed;
        }
        if (end >= HEAD_CHARS) {
          if (left.slice(START.length, START.length + MARK_CHARS) === this.#active?.mark)
            this.#active.line(left.slice(HEAD_CHARS, end));
          left = left.slice(end + 1);
          continue;
        }
      }
      passed += START;
      left = left.slice(START.length);
    }
  }

  /** Whether a text is a line of a trace, or may become one. */
  #mayBegin(text: string): boolean {
    const mark = text.slice(START.length, HEAD_CHARS);
    for (const known of this.#marks) if (`${known} `.startsWith(mark)) return true;
    return false;
  }
}
