import type { InvocationJob } from "#contracts/invocation";

/** The request body that travelled in the job, when there is one. */
export function inlineBody(job: InvocationJob): Buffer | undefined {
  if (!job.body) return undefined;
  const body =
    "text" in job.body
      ? Buffer.from(job.body.text, "utf8")
      : Buffer.from(job.body.base64, "base64");
  return body.length > 0 ? body : undefined;
}

/** What an INVOKE tells the runner of a job. */
export const requestOf = (
  { id, kind, head: { method, url, path } }: InvocationJob,
  headers: [string, string][],
  deadlineMs: number,
  hasBody: boolean,
) => ({ id, kind, method, url, path, headers, deadlineMs, hasBody });
