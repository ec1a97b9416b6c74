import type { InvocationJob } from "#contracts/invocation";

/** An invocation as a gateway sends it, for tests of its way. */
export function invocationJob(id: string, more: Partial<InvocationJob> = {}): InvocationJob {
  const now = Date.now();
  return {
    id,
    tenantId: "ten_1",
    functionId: "fn_1",
    versionId: "ver_1",
    kind: "http",
    head: { method: "GET", url: "http://localhost/", path: "/", headers: [["a", "b"]] },
    bodyFollows: false,
    replyTo: "unix:/tmp/nobody.sock",
    acceptedAtMs: now,
    expiresAtMs: now + 60_000,
    ...more,
  };
}
