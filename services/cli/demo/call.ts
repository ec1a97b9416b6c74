import type { Path } from "#contracts/function";
import { type Api, failureOf, segment } from "../http/api.ts";
import type { Expectation } from "./expected.ts";

export interface CallOutcome {
  /** Answered with 200 and what was expected. */
  right: boolean;
  status: number;
  /** From sending to the last byte of the answer, ms. */
  durationMs: number;
  start: string;
  answer: string;
  /** problem+json code of an error. */
  code: string | undefined;
}

const BOUND_MS = 60_000;

/** One call on one path. Rejects only when the service cannot be reached. */
export async function callExample(
  api: Api,
  name: string,
  wanted: Expectation,
  path: Path,
): Promise<CallOutcome> {
  const began = performance.now();
  const response = await api.send(wanted.method ?? "GET", `/f/${segment(name)}${wanted.path}`, {
    headers: { "cloister-isolation": path },
    signal: AbortSignal.timeout(BOUND_MS),
    ...(wanted.body === undefined ? {} : { body: wanted.body }),
  });
  const start = response.headers.get("cloister-start") ?? "-";
  const { status } = response;
  if (!response.ok) {
    const { message } = await failureOf(response);
    const code = message.match(/\(\d+ (\w+)\)/)?.[1];
    return {
      right: false,
      status,
      durationMs: performance.now() - began,
      start,
      answer: message,
      code,
    };
  }
  const answer = await response.text();
  const durationMs = performance.now() - began;
  return { right: wanted.answer.test(answer), status, durationMs, start, answer, code: undefined };
}
