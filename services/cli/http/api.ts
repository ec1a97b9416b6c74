import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { EXIT, Failure } from "../failure.ts";
import { dataFolder } from "../instance/folders.ts";

export interface Credentials {
  url: string;
  key: string;
}

const credentialsSchema = z.object({ url: z.url(), key: z.string().min(1), adminKey: z.string() });
const problemSchema = z.object({
  title: z.string().optional(),
  detail: z.string().optional(),
  remedy: z.string().optional(),
  code: z.string().optional(),
});

/** Where the service is and the key for it: CLOISTER_URL and CLOISTER_KEY, else DIR/credentials.json. */
export const readCredentials = (data?: string): Credentials => credentialsWith("key", data);

/** The same with the key of the operator's admin. */
export const readAdminCredentials = (data?: string): Credentials =>
  credentialsWith("adminKey", data);

function credentialsWith(which: "key" | "adminKey", data?: string): Credentials {
  const { CLOISTER_URL: url, CLOISTER_KEY: key } = process.env;
  if (url !== undefined && key !== undefined) return { url: url.replace(/\/+$/, ""), key };
  const file = join(dataFolder(data), "credentials.json");
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EACCES") {
      throw new Failure(
        `${file} may be read by root only.`,
        "Run this as root, or set CLOISTER_URL and CLOISTER_KEY.",
      );
    }
    throw new Failure(
      `No service is running: ${file} is not there.`,
      "Start it with ./cloister up, name its folder with --data-dir, or set CLOISTER_URL and CLOISTER_KEY.",
    );
  }
  try {
    const found = credentialsSchema.parse(JSON.parse(text));
    return { url: url ?? found.url, key: key ?? found[which] };
  } catch {
    throw new Failure(
      `${file} is damaged.`,
      "Start the service anew: ./cloister down, ./cloister up.",
    );
  }
}

/** The HTTP API as the commands use it. Every failure is a Failure with the service's own remedy. */
export class Api {
  readonly url: string;
  readonly #key: string;

  constructor(credentials: Credentials) {
    this.url = credentials.url;
    this.#key = credentials.key;
  }

  /** The id of the key that is used; undefined for what is none. */
  get keyId(): string | undefined {
    const match = /^cl_([0-9a-v]{26})_/.exec(this.#key);
    return match ? `key_${match[1]}` : undefined;
  }

  /** Any answer, also one that is an error. Rejects when the service cannot be reached. */
  async send(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has("authorization")) headers.set("authorization", `Bearer ${this.#key}`);
    try {
      return await fetch(`${this.url}${path}`, { ...init, method, headers });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      throw new Failure(
        `${this.url} cannot be reached (${(cause as NodeJS.ErrnoException).code ?? (cause as Error).message}).`,
        "Start the service with ./cloister up, or set CLOISTER_URL.",
      );
    }
  }

  async json<T>(
    method: string,
    path: string,
    schema: z.ZodType<T>,
    init: RequestInit = {},
  ): Promise<T> {
    const response = await this.send(method, path, init);
    if (!response.ok) throw await failureOf(response);
    const parsed = schema.safeParse(await response.json().catch(() => undefined));
    if (parsed.success) return parsed.data;
    throw new Failure(
      `${this.url} answered ${method} ${path} with something this command does not understand.`,
      "Use the command line of the same version as the service.",
    );
  }
}

/** A problem+json answer as a failure; any other error answer by its status. */
export async function failureOf(response: Response): Promise<Failure> {
  const text = await response.text().catch(() => "");
  let problem: z.infer<typeof problemSchema> = {};
  if (response.headers.get("content-type")?.startsWith("application/problem+json")) {
    try {
      problem = problemSchema.parse(JSON.parse(text));
    } catch {
      // Then it is shown as it is.
    }
  }
  return told(problem, response.status, text);
}

/** The same for a problem that came as an event of a stream. */
export function problemFailure(data: unknown): Failure {
  const parsed = problemSchema.extend({ status: z.number().optional() }).safeParse(data);
  return told(parsed.data ?? {}, parsed.data?.status ?? 500, "");
}

function told(
  { title, detail, remedy, code }: z.infer<typeof problemSchema>,
  status: number,
  text: string,
): Failure {
  const what = detail && title && detail !== title ? `${title}: ${detail}` : (detail ?? title);
  const sentence = what ?? (text.trim().slice(0, 500) || "no more was said");
  return new Failure(
    `${sentence.replace(/\.$/, "")} (${status}${code ? ` ${code}` : ""}).`,
    remedy ?? "See the service's logs.",
    EXIT.failed,
    code,
  );
}

/** `name`, `name@3` or `name@alias` as one path segment. */
export const segment = (text: string): string => encodeURIComponent(text).replaceAll("%40", "@");
