/** What a command ends with; `./cloister --help` tells people. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** A failure a person can act on: one sentence and a remedy. Everything else that is thrown is a bug and shown with its stack. */
export class Failure extends Error {
  readonly remedy: string;
  readonly exitCode: number;
  /** The service's, when it was the service that refused. */
  readonly code: string | undefined;
  constructor(message: string, remedy: string, exitCode: number = EXIT.failed, code?: string) {
    super(message);
    this.name = "Failure";
    this.remedy = remedy;
    this.exitCode = exitCode;
    this.code = code;
  }
}

export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** Prints to stderr what went wrong and gives the exit code. */
export function reportFailure(error: unknown): number {
  if (error instanceof Failure) {
    process.stderr.write(`cloister: ${error.message}\n  ${error.remedy}\n`);
    return error.exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`cloister: Something broke that should not: ${text}\n`);
  process.stderr.write("  Run ./cloister doctor; if all is well there, report this.\n");
  return EXIT.failed;
}
