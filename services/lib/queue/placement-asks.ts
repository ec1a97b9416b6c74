import { randomUUID } from "node:crypto";
import { z } from "zod";
import { pathSchema, startKindSchema } from "#contracts/function";
import type { Placement, Refusal } from "#contracts/placement";
import type { Publisher, Subscriber } from "./pubsub.ts";

/** Redis pub/sub channel on which a gateway asks all nodes what they would do with a call. */
const ASKS_CHANNEL = "cloister:placement:asks";
const answersChannel = (ask: string): string => `cloister:placement:answers:${ask}`;

const askSchema = z.object({
  /** Names the channel that answers go to. */
  ask: z.uuid(),
  versionId: z.string().min(1).max(64),
  tenantId: z.string().min(1).max(64),
  wanted: pathSchema.optional(),
});
export type PlacementAsk = z.infer<typeof askSchema>;

const texts = z.array(z.string().max(1000)).max(64);
const pathAnswerSchema = z.object({
  /** How a call would start now, and whether at once. */
  start: startKindSchema,
  ready: z.boolean(),
  /** How one would that finds no sandbox open, and what that is expected to cost, by this many observations of the version's own. */
  next: startKindSchema,
  acquireMs: z.number().min(0),
  memoryMb: z.number().min(0),
  observed: z.number().min(0),
});

/** What one node says of a call, without running it. */
export const nodePlacementSchema = z.object({
  id: z.string().min(1).max(64),
  path: pathSchema.nullable(),
  start: startKindSchema.optional(),
  code: z.string().max(64).optional(),
  detail: z.string().max(1000).optional(),
  remedy: z.string().max(1000).optional(),
  reasons: texts,
  rules: texts,
  /** Version of the node's table. */
  table: z.string().max(100),
  /** Of each path that the node has. */
  paths: z.partialRecord(pathSchema, pathAnswerSchema),
});
export type NodePlacement = z.infer<typeof nodePlacementSchema>;

/** What was decided, without what a node has. */
export type ToldPlacement = Omit<NodePlacement, "id" | "paths">;

export function toldPlacement(decided: Placement | Refusal): ToldPlacement {
  const told = {
    reasons: [...decided.reasons],
    rules: [...decided.rules],
    table: decided.table,
  };
  if ("path" in decided) {
    const { path, start } = decided;
    return { ...told, path, ...(start === undefined ? {} : { start }) };
  }
  const { refused, detail, remedy } = decided;
  return {
    ...told,
    path: null,
    code: refused,
    detail,
    ...(remedy === undefined ? {} : { remedy }),
  };
}

/** A node that has not answered by then is taken to be busy or gone, ms. */
const PATIENCE_MS = 1000;

/** Asks nodes; resolves when all of `nodes` have answered, or after a second with those that have. Never rejects. */
export async function askPlacement(
  { publisher, subscriber }: { publisher: Publisher; subscriber: Subscriber },
  call: Omit<PlacementAsk, "ask">,
  nodes: readonly string[],
  patienceMs = PATIENCE_MS,
): Promise<Map<string, NodePlacement>> {
  const answers = new Map<string, NodePlacement>();
  if (nodes.length === 0) return answers;
  const ask = randomUUID();
  const { promise: heard, resolve } = Promise.withResolvers<void>();
  const missing = new Set(nodes);
  const bound = setTimeout(resolve, patienceMs);
  const subscription = subscriber.subscribe(answersChannel(ask), (message) => {
    const parsed = nodePlacementSchema.safeParse(message);
    if (!parsed.success || !missing.delete(parsed.data.id)) return;
    answers.set(parsed.data.id, parsed.data);
    if (missing.size === 0) resolve();
  });
  // Without Redis neither of them ends soon; what the bound leaves is then nobody's answer.
  const asked = subscription.then(() =>
    publisher.publish(ASKS_CHANNEL, { ...call, ask } satisfies PlacementAsk),
  );
  asked.catch(() => resolve());
  await heard;
  clearTimeout(bound);
  subscription.then((end) => end()).catch(() => {});
  return answers;
}

/** Answers what gateways ask, until the subscriber closes. What cannot be answered is left unanswered and told to `onProblem`. */
export async function answerPlacement(
  { publisher, subscriber }: { publisher: Publisher; subscriber: Subscriber },
  answer: (ask: PlacementAsk) => Promise<NodePlacement>,
  onProblem: (error: Error) => void,
): Promise<void> {
  await subscriber.subscribe(ASKS_CHANNEL, (message) => {
    const parsed = askSchema.safeParse(message);
    if (!parsed.success) {
      onProblem(new Error("A question about placement cannot be read"));
      return;
    }
    answer(parsed.data).then(
      (told) => publisher.publish(answersChannel(parsed.data.ask), told),
      (error: Error) => onProblem(error),
    );
  });
}
