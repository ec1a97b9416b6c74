/**
 * Every error a user can meet: a stable code, its HTTP status, a title and what to do about it. The OpenAPI document, the
 * documentation and the CLI read this one table.
 */
export interface ErrorEntry {
  status: number;
  title: string;
  remedy: string;
}

const entry = (status: number, title: string, remedy: string): ErrorEntry => ({
  status,
  title,
  remedy,
});

export const ERRORS = {
  bad_request: entry(400, "The request is not valid", "Correct the field that detail names."),
  bad_bundle: entry(
    400,
    "The bundle cannot be used",
    "Pack the function's folder as a plain tar.gz of files and folders.",
  ),
  trace_unavailable: entry(
    400,
    "The system calls of this call are not seen",
    "Trace it in a micro-VM: add --isolation microvm, or the header Cloister-Isolation: microvm.",
  ),
  unauthenticated: entry(
    401,
    "A valid key is needed",
    "Send Authorization: Bearer <key>; DIR/credentials.json holds the first ones.",
  ),
  forbidden: entry(403, "The key may not do this", "Use a key with the scope that detail names."),
  tenant_suspended: entry(
    403,
    "The tenant is suspended",
    "Ask the operator, who resumes it with ./cloister tenant resume <name>.",
  ),
  isolation_not_allowed: entry(
    403,
    "Weaker isolation than the policy allows",
    "Leave out Cloister-Isolation or ask for stronger isolation.",
  ),
  not_found: entry(404, "There is nothing here", "See /docs for the addresses that exist."),
  function_not_found: entry(
    404,
    "No such function",
    "List yours with ./cloister ls, or deploy it.",
  ),
  version_not_found: entry(
    404,
    "No such version or alias",
    "List versions with ./cloister versions <name>.",
  ),
  tenant_not_found: entry(404, "No such tenant", "List them with ./cloister tenant ls."),
  key_not_found: entry(404, "No such key", "List them with ./cloister key ls --tenant <name>."),
  method_not_allowed: entry(
    405,
    "The method is not allowed here",
    "See /docs for the methods of this address.",
  ),
  request_timeout: entry(
    408,
    "The request did not arrive in time",
    "Send the whole request without pauses.",
  ),
  conflict: entry(409, "The state does not allow this", "Read the current state and try again."),
  precondition_failed: entry(
    412,
    "It has changed since it was read",
    "Read it again, and send the change with the ETag that comes with it.",
  ),
  body_too_large: entry(
    413,
    "The body is too large",
    "Send at most 6 MiB to a function and 50 MiB as a bundle.",
  ),
  unsupported_media_type: entry(
    415,
    "The content type is not supported",
    "Send application/json or multipart/form-data.",
  ),
  headers_too_large: entry(
    431,
    "The address and headers are too large",
    "Send at most 16 KiB of address and headers; put the rest into the body.",
  ),
  precondition_required: entry(
    428,
    "The change must name the state that it is of",
    "Read it first, and send its ETag as If-Match.",
  ),
  quota_exceeded: entry(
    429,
    "A quota is used up",
    "Wait as Retry-After says, or ask for a larger quota.",
  ),
  backlog_full: entry(
    429,
    "Too many calls of this tenant wait already",
    "Send fewer calls at once, or try again as Retry-After says.",
  ),
  function_error: entry(500, "The function failed", "See its logs with ./cloister logs <name>."),
  function_init_error: entry(
    500,
    "The function could not be loaded",
    "See detail and the logs; deploy a corrected version.",
  ),
  function_no_handler: entry(
    500,
    "The function exports nothing that can be called",
    "Export default { fetch } or handler(event, context).",
  ),
  function_bad_response: entry(
    502,
    "The function's answer cannot be used",
    "Return a Response, or a value that JSON can hold.",
  ),
  function_out_of_memory: entry(
    500,
    "The function used more memory than it may",
    "Use less memory, or deploy with a larger --memory.",
  ),
  function_exited: entry(
    502,
    "The function ended without an answer",
    "Do not exit the process while a request is open; see the logs.",
  ),
  function_timeout: entry(
    504,
    "The function took longer than it may",
    "Make it faster, or deploy with a larger --timeout.",
  ),
  invocation_cancelled: entry(
    499,
    "The caller went away",
    "Keep the connection open until the answer is whole.",
  ),
  internal: entry(
    500,
    "Something broke on our side",
    "Try again; if it stays, send the invocation id to the operator.",
  ),
  not_implemented: entry(501, "Not available in this version", "See CHANGELOG.md for what is."),
  worker_lost: entry(
    502,
    "The worker serving this ended midway",
    "Try again if the function may run twice.",
  ),
  sandbox_failed: entry(
    502,
    "The sandbox could not be made or ended midway",
    "Try again; if it stays, run ./cloister doctor.",
  ),
  isolation_unavailable: entry(
    503,
    "The isolation this needs is not to be had",
    "Run ./cloister doctor on the node, or allow another path for the function.",
  ),
  start_unavailable: entry(
    503,
    "The start that is compared cannot be had",
    "See ./cloister versions <name> and ./cloister doctor; the other starts are compared without it.",
  ),
  capacity_exhausted: entry(
    503,
    "No room for another sandbox",
    "Try again later, or give the node more memory.",
  ),
  queue_timeout: entry(503, "No worker took the request in time", "Try again later; see /readyz."),
  draining: entry(503, "The service is shutting down", "Try again in a moment."),
  dependency_unavailable: entry(
    503,
    "The database or the queue cannot be reached",
    "Try again in a moment; see /readyz.",
  ),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

/** An error with a place in the catalogue. `detail` is one sentence for the user; nothing secret goes in. */
export class CloisterError extends Error {
  readonly code: ErrorCode;
  readonly extra: Record<string, unknown>;
  constructor(code: ErrorCode, detail?: string, extra: Record<string, unknown> = {}) {
    // What a caller did wrong is told, and not looked for in the code; to write a stack down would be an eighth of what a refusal costs.
    const { stackTraceLimit } = Error;
    if (ERRORS[code].status < 500) Error.stackTraceLimit = 0;
    super(detail ?? ERRORS[code].title);
    Error.stackTraceLimit = stackTraceLimit;
    this.name = "CloisterError";
    this.code = code;
    this.extra = extra;
  }
  get status(): number {
    return ERRORS[this.code].status;
  }
  /** The code's, unless whoever threw it knew better. */
  get remedy(): string {
    const { remedy } = this.extra;
    return typeof remedy === "string" ? remedy : ERRORS[this.code].remedy;
  }
}

/** Narrows a string from a wire to a code; an unknown one is `internal`, never trusted. */
export function errorCode(value: unknown): ErrorCode {
  return typeof value === "string" && Object.hasOwn(ERRORS, value)
    ? (value as ErrorCode)
    : "internal";
}
