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
  await answer(serving);
  return serving;
}

/** Asks once; throws when the answer is not the one of examples/hello. */
export async function answer(serving: ServingSandbox): Promise<void> {
  const { status, body } = await wholeAnswer(serving, { path: "/?name=bench" });
  if (status !== 200 || !body.includes("Hello, bench!")) {
    throw new Error(`answered ${status} ${body.toString("utf8").slice(0, 200)}`);
  }
}
