import { readEnvironment } from "#config/environment";
import { readTraceSettings } from "#config/trace-environment";
import { Failure, messageOf } from "../failure.ts";

/** Checks what is handed on to the services before any starts: they would end at once, and say why in their logs alone. */
export function checkSettings(env: Record<string, string | undefined> = process.env): void {
  try {
    readEnvironment(env);
    readTraceSettings(env);
  } catch (error) {
    throw new Failure(
      `${messageOf(error)}.`,
      "README.md (Configuration) and docs/operations.md (Traces) tell what may be set; correct it, or unset it.",
    );
  }
}
