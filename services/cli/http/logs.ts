import { z } from "zod";
import { END_OF_TRACE } from "#contracts/invocation";
import type { Api } from "./api.ts";
import { failureOf, segment } from "./api.ts";
import { eventsOf } from "./events.ts";

const entrySchema = z.looseObject({
  invocationId: z.string().nullish(),
  version: z.number().nullish(),
  atMs: z.number(),
  stream: z.string(),
  text: z.string(),
});
export type LogLine = z.infer<typeof entrySchema>;
const pageSchema = z.union([
  z.object({ entries: z.array(entrySchema) }).transform(({ entries }) => entries),
  z.object({ logs: z.array(entrySchema) }).transform(({ logs }) => logs),
  z.array(entrySchema),
]);

const address = (name: string, query: Record<string, string>): string =>
  `/v1/functions/${segment(name)}/logs?${new URLSearchParams(query)}`;

/** Stored lines of a function, oldest first. */
export async function storedLogs(
  api: Api,
  name: string,
  query: Record<string, string>,
): Promise<LogLine[]> {
  return api.json("GET", address(name, query), pageSchema as z.ZodType<LogLine[]>, {
    headers: { accept: "application/json" },
  });
}

/** Records are written in batches, so an invocation's lines may come a moment after its answer. */
const ATTEMPTS = 8;
const PAUSE_MS = 250;

/** What one invocation wrote; waits a bounded time for it to be stored. */
export async function invocationLogs(api: Api, name: string, id: string): Promise<LogLine[]> {
  for (let attempt = 0; ; attempt++) {
    const all = await storedLogs(api, name, { limit: "1000", invocation: id });
    const own = all.filter((entry) => entry.invocationId === id && entry.stream !== "trace");
    if (own.length > 0 || attempt === ATTEMPTS) return own;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** A trace ends with a line of its own; a worker that died in between writes none, so the wait has a bound. */
const TRACE_ATTEMPTS = 40;

/** The system calls of one invocation. */
export async function invocationTrace(api: Api, name: string, id: string): Promise<LogLine[]> {
  for (let attempt = 0; ; attempt++) {
    const all = await storedLogs(api, name, { limit: "1000", invocation: id });
    const own = all.filter((entry) => entry.invocationId === id && entry.stream === "trace");
    if (own.some(({ text }) => text === END_OF_TRACE) || attempt === TRACE_ATTEMPTS) return own;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Resolves when the service listens for new lines (server-sent events); they come until `signal` or the service ends it. */
export async function followLogs(
  api: Api,
  name: string,
  signal: AbortSignal,
): Promise<AsyncGenerator<LogLine>> {
  const response = await api.send("GET", address(name, { follow: "true" }), {
    headers: { accept: "text/event-stream" },
    signal,
  });
  if (!response.ok) throw await failureOf(response);
  return linesOf(response);
}

async function* linesOf(response: Response): AsyncGenerator<LogLine> {
  for await (const { data } of eventsOf(response))
    for (const one of Array.isArray(data) ? data : [data]) {
      const parsed = entrySchema.safeParse(one);
      if (parsed.success) yield parsed.data;
    }
}
