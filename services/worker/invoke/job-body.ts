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
