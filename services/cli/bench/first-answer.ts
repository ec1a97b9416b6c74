import {
  type AssignedSandbox,
  type ServingSandbox,
  wholeAnswer,
} from "../../worker/sandbox/index.ts";
import type { Ground } from "./ground.ts";

/** Loads the function and has it answer. */
export async function firstAnswer(
  assigned: AssignedSandbox,
  ground: Ground,
): Promise<ServingSandbox> {
  const serving = await assigned.initialise(ground.init);
  await answer(serving, ground);
  return serving;
}

/** Asks once; throws when the answer is not right. */
export async function answer(serving: ServingSandbox, { question, init }: Ground): Promise<void> {
  const { memoryMb } = init;
  const { status, body } = await wholeAnswer(serving, { memoryMb, ...question.request });
  if (!question.isRight(status, body))
    throw new Error(`answered ${status} ${body.toString("utf8").slice(0, 200)}`);
}
