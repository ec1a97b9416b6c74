import { CloisterError, ERRORS, type ErrorCode } from "#errors/catalogue";
import { quotaOf } from "./quota/quota-error.ts";

/** An error as callers see it: RFC 9457 with Cloister's `code` and `remedy`. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ErrorCode;
  remedy: string;
  /** The invocation's id, when there was one. */
  instance?: string;
  /** Name of the error a function threw. */
  errorType?: string;
  /** The quota that is used up, whose it is and what it allows. */
  quota?: string;
  of?: string;
  limit?: number | string;
}

export const PROBLEM_TYPE = "application/problem+json";

export const problemOf = (error: CloisterError, instance?: string): Problem => {
  const { title, status } = ERRORS[error.code];
  const { type } = error.extra;
  const excess = quotaOf(error);
  return {
    type: `urn:cloister:error:${error.code}`,
    title,
    status,
    detail: error.message,
    code: error.code,
    remedy: error.remedy,
    ...(instance === undefined ? {} : { instance }),
    ...(typeof type === "string" ? { errorType: type } : {}),
    ...(excess ? { quota: excess.quota, of: excess.of, limit: excess.limit } : {}),
  };
};

/** Headers that go with an error beside its body. */
export const problemHeaders = (error: CloisterError): [string, string][] => [
  ...quotaHeaders(error),
  ["content-type", PROBLEM_TYPE],
  ["cache-control", "no-store"],
  ...(error.code === "unauthenticated"
    ? ([["www-authenticate", 'Bearer realm="cloister"']] as [string, string][])
    : []),
  ...(error.status === 503 || error.code === "backlog_full"
    ? ([["retry-after", "1"]] as [string, string][])
    : []),
];

function quotaHeaders(error: CloisterError): [string, string][] {
  const excess = quotaOf(error);
  if (!excess) return [];
  const { retryAfterS, headers } = excess;
  return [
    ["ratelimit-policy", headers.policy],
    ["ratelimit", headers.limit],
    ["retry-after", String(retryAfterS)],
  ];
}

/** What is thrown without a place in the catalogue is ours, and told to the operator only. */
export const asCloisterError = (
  error: unknown,
  onUnknown: (error: Error) => void,
): CloisterError => {
  if (error instanceof CloisterError) return error;
  onUnknown(error instanceof Error ? error : new Error(String(error)));
  return new CloisterError("internal", "The gateway met an error of its own");
};
