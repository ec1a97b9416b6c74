import { z } from "@hono/zod-openapi";
import { ERRORS, type ErrorCode } from "#errors/catalogue";
import { problemSchema } from "./function-schemas.ts";

interface Answer {
  description: string;
  headers?: typeof LIMITED;
  content: { "application/problem+json": { schema: typeof problemSchema } };
}

const LIMITED = z.object({
  "Retry-After": z.string().describe("s"),
  "RateLimit-Policy": z.string().describe("what is allowed"),
  RateLimit: z.string().describe("what is left of it"),
});

/** The error answers of a route, by status: what the catalogue says of each code. */
export function problems(...codes: ErrorCode[]): Record<number, Answer> {
  const answers: Record<number, Answer> = {};
  const all: ErrorCode[] = [
    ...codes,
    "unauthenticated",
    "forbidden",
    "tenant_suspended",
    "dependency_unavailable",
    "internal",
  ];
  for (const code of new Set(all)) {
    const { status, title } = ERRORS[code];
    const said = `${code}: ${title}`;
    const before = answers[status];
    answers[status] = {
      ...(code === "quota_exceeded" ? { headers: LIMITED } : {}),
      description: before ? `${before.description}; ${said}` : said,
      content: { "application/problem+json": { schema: problemSchema } },
    };
  }
  return answers;
}
