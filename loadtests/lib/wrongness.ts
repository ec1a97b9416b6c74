import type { LoadRequest } from "./plan.ts";

/** What is looked at of an answer. */
export interface Looked {
  /** 0 when there was no answer. */
  status: number;
  /** Why there was none. */
  error: string;
  path: string | null;
  /** It says when. */
  mayComeAgain(): boolean;
  bytes(): number;
  /** The body of an answer that is none of the function's. */
  problem(): string;
  digest(): string;
  /** Of the body that was sent. */
  sentDigest: string | undefined;
}

const MOST_REASON = 100;

/** What is wrong with an answer, in few words; null when it is as it should be. */
export function wrongness(request: LoadRequest, looked: Looked): string | null {
  const { isolation, mayBeRefused, answer, bodyBytes } = request;
  const { status, path } = looked;
  if (status === 0) return (looked.error || "no answer").slice(0, MOST_REASON);
  if (status === 429 && mayBeRefused)
    return looked.mayComeAgain() ? null : "429 without Retry-After";
  if (status !== 200) {
    const code = /"code":\s*"([a-z_]{1,60})"/.exec(looked.problem())?.[1];
    return code === undefined ? String(status) : `${status} ${code}`;
  }
  if (path === null) return "no Cloister-Isolation header";
  if (isolation !== undefined && path !== isolation)
    return `answered by ${path}, not by ${isolation}`;
  if (answer === "echo") {
    const same = looked.bytes() === bodyBytes && looked.digest() === looked.sentDigest;
    return same ? null : "another body came back";
  }
  return answer !== undefined && looked.bytes() !== answer.bytes
    ? "an answer of another length"
    : null;
}
