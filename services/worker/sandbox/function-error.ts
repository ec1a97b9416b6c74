import { CloisterError, type ErrorCode } from "#errors/catalogue";

const FUNCTION_CODES: ReadonlySet<string> = new Set([
  "function_error",
  "function_bad_response",
  "function_init_error",
  "function_no_handler",
] satisfies ErrorCode[]);

const cut = (value: unknown, limit: number): string | undefined =>
  typeof value === "string" && value !== "" ? value.slice(0, limit) : undefined;

/** An error a runner reported, checked: codes it may not claim become `fallback`. */
export function functionError(raw: unknown, fallback: ErrorCode): CloisterError {
  const error = (typeof raw === "object" && raw !== null ? raw : {}) as Record<string, unknown>;
  const code = cut(error.code, 64);
  const type = cut(error.type, 256);
  const message = cut(error.message, 4096) ?? "no message";
  const stack = cut(error.stack, 16_384);
  return new CloisterError(
    code !== undefined && FUNCTION_CODES.has(code) ? (code as ErrorCode) : fallback,
    type && !message.startsWith(type) ? `${type}: ${message}` : message,
    { ...(type ? { type } : {}), ...(stack ? { stack } : {}) },
  );
}
