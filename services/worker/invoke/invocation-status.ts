import type { InvocationStatus } from "#contracts/invocation";
import type { ErrorCode } from "#errors/catalogue";

/** Whose fault an error is, as a record tells it. */
export function statusOf(code: ErrorCode): InvocationStatus {
  switch (code) {
    case "function_timeout":
    case "function_out_of_memory":
    case "function_exited":
      return code;
    case "function_error":
    case "function_init_error":
    case "function_no_handler":
    case "function_bad_response":
      return "function_error";
    case "invocation_cancelled":
      return "cancelled";
    default:
      return "platform_error";
  }
}
