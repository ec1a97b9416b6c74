import { sleep } from "k6";
import http, { type RequestBody, type Response } from "k6/http";
import type { LoadFunction, LoadTenant, Plan } from "./plan.ts";
import type { Service } from "./settings.ts";

/** Deploys at a time: each makes a snapshot. */
const AT_ONCE = 4;
/** Nothing tells when a snapshot is ready, s. */
const PAUSE_S = 0.1;
/** A deploy does not wait longer: calls are served without one, s. */
const LONGEST_S = 90;
/** What the tier would limit and the scenario does not. */
const UNLIMITED = {
  requestsPerSecond: null,
  burst: null,
  concurrency: null,
  gbSecondsPerMonth: null,
  functions: null,
};

/** What a run has made on one service, and how it is called. */
export interface Deployment {
  label: string;
  url: string;
  /** What the names of its functions begin with. */
  prefix: string;
  /** Key by the function's name in the scenario. */
  keys: Record<string, string>;
  tenants: { name: string; id: string }[];
}

/** What went wrong, as a sentence and its remedy. */
export class Problem extends Error {
  readonly remedy: string;
  constructor(message: string, remedy: string) {
    super(message);
    this.remedy = remedy;
  }
}

type Sent = { method: string; url: string; key: string; body?: unknown };

const batched = ({ method, url, key, body }: Sent) => ({
  method,
  url,
  body: (body === undefined ? null : JSON.stringify(body)) as RequestBody | null,
  params: {
    headers: {
      authorization: `Bearer ${key}`,
      "content-type": "application/json",
      // Nobody else knows what is changed yet, so there is no other state that a change could undo.
      "if-match": "*",
    },
    redirects: 0,
    timeout: "120s",
    responseType: "text" as const,
  },
});

/** Sends each and gives their answers as JSON. Throws the service's own sentence about the first that failed. */
function ask(requests: readonly Sent[]): Record<string, unknown>[] {
  return http.batch(requests.map(batched)).map((response: Response) => {
    if (response.status >= 200 && response.status < 300)
      return response.status === 204 ? {} : (response.json() as Record<string, unknown>);
    throw problemOf(response);
  });
}

function problemOf({ status, body, error, url }: Response): Problem {
  if (status === 0) {
    return new Problem(
      `${url} cannot be reached: ${error}.`,
      "Start the service with ./cloister up, or correct CLOISTER_URL.",
    );
  }
  try {
    const { title, detail, code, remedy } = JSON.parse(String(body)) as Record<string, unknown>;
    const sentence = String(detail ?? title ?? `${url} refused`).replace(/\.$/, "");
    return new Problem(
      `${sentence} (${status}${code ? ` ${code}` : ""}).`,
      String(remedy ?? "See the service's logs."),
    );
  } catch {
    return new Problem(`${url} answered ${status}.`, "Check that CLOISTER_URL names a Cloister.");
  }
}

/** Deploys what a plan needs under names that begin with `prefix`. When something fails, nothing of it is left. */
export function deploy(
  plan: Plan,
  { label, url, key, adminKey }: Service,
  prefix: string,
): Deployment {
  const made: Deployment = { label, url, prefix, keys: {}, tenants: [] };
  const keyOfTenant: Record<string, string> = {};
  try {
    for (const tenant of plan.tenants)
      keyOfTenant[tenant.name] = makeTenant(tenant, { url, adminKey, prefix }, made);
    for (let at = 0; at < plan.functions.length; at += AT_ONCE) {
      const some = plan.functions.slice(at, at + AT_ONCE);
      for (const { name, tenant } of some) made.keys[name] = keyOfTenant[tenant ?? ""] ?? key;
      publish(some, made);
    }
    return made;
  } catch (error) {
    remove(made, adminKey);
    throw error;
  }
}

function makeTenant(
  { name, tier, quota }: LoadTenant,
  { url, adminKey: key, prefix }: { url: string; adminKey: string | undefined; prefix: string },
  made: Deployment,
): string {
  if (key === undefined) {
    throw new Problem(
      "This scenario makes tenants, and the service's admin key is not known.",
      "Name the service's data folder with --data-dir, or set CLOISTER_ADMIN_KEY.",
    );
  }
  const post = (path: string, body: unknown, method = "POST"): Record<string, unknown> =>
    ask([{ method, url: `${url}/admin/v1/tenants${path}`, key, body }])[0] ?? {};
  const id = String(post("", { name: `${prefix}${name}`, tier }).id);
  made.tenants.push({ name, id });
  // PUT replaces, and what is left out is the tier's.
  post(`/${id}/quota`, { ...UNLIMITED, ...quota }, "PUT");
  const scopes = ["invoke", "deploy", "read"];
  return String(post(`/${id}/keys`, { name: `${prefix}load`, scopes }).key);
}

/** Publishes functions, and waits until each has its snapshot or is known to get none: making it would be part of what is measured. */
function publish(functions: readonly LoadFunction[], made: Deployment): void {
  const { url, prefix, keys } = made;
  const keyed = functions.map((one) => ({ one, key: keys[one.name] ?? "" }));
  ask(
    keyed.map(({ one, key }) => ({
      ...{ method: "POST", url: `${url}/v1/functions`, key },
      body: configOf(one, `${prefix}${one.name}`),
    })),
  );
  const latest = Date.now() + LONGEST_S * 1000;
  for (let waiting = keyed; waiting.length > 0; ) {
    const answers = ask(
      waiting.map(({ one, key }) => ({
        ...{ method: "GET", url: `${url}/v1/functions/${prefix}${one.name}`, key },
      })),
    );
    waiting = waiting.filter((_, index) => {
      const snapshot = answers[index]?.snapshot as { state?: string } | undefined;
      return snapshot?.state === "making";
    });
    if (Date.now() > latest) return;
    if (waiting.length > 0) sleep(PAUSE_S);
  }
}

const configOf = (
  { source, memoryMb, concurrency, isolation }: LoadFunction,
  name: string,
): Record<string, unknown> => ({
  name,
  runtime: "node24",
  files: { "index.mjs": source },
  timeoutMs: 30_000,
  ...(memoryMb === undefined ? {} : { memoryMb }),
  ...(concurrency === undefined ? {} : { concurrency }),
  ...(isolation === undefined ? {} : { isolation }),
});

/** Removes functions, and tenants with all that is theirs. What does not answer is left. */
export function remove({ url, prefix, keys, tenants }: Deployment, adminKey?: string): void {
  const deletions = [
    ...Object.entries(keys).map(([name, key]) => ({
      ...{ method: "DELETE", url: `${url}/v1/functions/${prefix}${name}`, key },
    })),
    ...tenants.map(({ id }) => ({
      ...{ method: "DELETE", url: `${url}/admin/v1/tenants/${id}?force=true`, key: adminKey ?? "" },
    })),
  ];
  for (let at = 0; at < deletions.length; at += AT_ONCE)
    http.batch(deletions.slice(at, at + AT_ONCE).map(batched));
}
