import {
  type AssignedSandbox,
  type ServingSandbox,
  wholeAnswer,
} from "../../worker/sandbox/index.ts";
import type { Ground } from "./ground.ts";

/** One way to get an answer of examples/hello. Only `measured` is timed. */
export interface BootMode {
  name: string;
  /** Makes ready what a service would have ready before the request comes. */
  before?(): Promise<void>;
  /** From the request for a sandbox to the whole first answer, which is checked. */
  measured(): Promise<void>;
  /** Takes away what the measurement left; called also when it failed. */
  after?(): Promise<void>;
  /** At the end of the run. */
  close?(): Promise<void>;
}

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
