/** What an end-to-end test needs of Cloister's HTTP API: no more than curl would give a user. */
export interface Target {
  url: string;
  key: string;
}

export interface Deployment {
  name: string;
  runtime?: string;
  files: Record<string, string>;
  [field: string]: unknown;
}

export async function deploy(target: Target, deployment: Deployment): Promise<void> {
  const response = await fetch(`${target.url}/v1/functions`, {
    method: "POST",
    headers: { authorization: `Bearer ${target.key}`, "content-type": "application/json" },
    body: JSON.stringify(deployment),
  });
  if (response.status !== 201) {
    throw new Error(`deploy ${deployment.name}: ${response.status} ${await response.text()}`);
  }
  await response.arrayBuffer();
}

/** Calls /f/{name}{path}; gives up after 60 s so that a hang is a failure, not a stuck run. */
export async function call(
  target: Target,
  name: string,
  path = "/",
  init: RequestInit = {},
): Promise<Response> {
  const headers = new Headers(init.headers);
  if (!headers.has("authorization")) headers.set("authorization", `Bearer ${target.key}`);
  return fetch(`${target.url}/f/${name}${path}`, {
    signal: AbortSignal.timeout(60_000),
    ...init,
    headers,
  });
}

export interface Problem {
  status: number;
  code?: string;
  detail?: string;
  remedy?: string;
}

/** Status and problem+json of an answer that should be an error. */
export async function problem(response: Response): Promise<Problem> {
  const text = await response.text();
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("application/problem+json")) return { status: response.status };
  return { ...(JSON.parse(text) as Omit<Problem, "status">), status: response.status };
}

export interface LogLine {
  invocationId?: string;
  text: string;
  stream: string;
}

/** Records are written in batches some tenths of a second after the end; nothing tells when. */
const RECORD_TRIES = 100;
const RECORD_PAUSE_MS = 50;

/** The record of the invocation that gave an answer. */
export async function recordOf(target: Target, answer: Response): Promise<Record<string, unknown>> {
  const id = answer.headers.get("cloister-invocation-id");
  for (let tries = 1; ; tries++) {
    const response = await fetch(`${target.url}/v1/invocations/${id}`, {
      headers: { authorization: `Bearer ${target.key}` },
    });
    if (response.ok) return (await response.json()) as Record<string, unknown>;
    const text = await response.text();
    if (response.status !== 404 || tries === RECORD_TRIES)
      throw new Error(`record ${id}: ${response.status} ${text}`);
    await new Promise((resolve) => setTimeout(resolve, RECORD_PAUSE_MS));
  }
}

/** Stored log lines of a function, oldest first. */
export async function logs(target: Target, name: string): Promise<LogLine[]> {
  const response = await fetch(`${target.url}/v1/functions/${name}/logs?limit=1000`, {
    headers: { authorization: `Bearer ${target.key}`, accept: "application/json" },
  });
  if (!response.ok) throw new Error(`logs ${name}: ${response.status} ${await response.text()}`);
  const body = (await response.json()) as { entries?: LogLine[]; logs?: LogLine[] } | LogLine[];
  return Array.isArray(body) ? body : (body.entries ?? body.logs ?? []);
}
