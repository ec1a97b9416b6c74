import { readFileSync } from "node:fs";
import { Failure, messageOf } from "../failure.ts";

/** The event of --data as JSON text: checked here, so that a typing error is told without a round trip. */
export function readEvent(data: string): string {
  let text = data;
  let source = "--data";
  try {
    if (data === "-") {
      source = "stdin";
      text = readFileSync(0, "utf8");
    } else if (data.startsWith("@")) {
      source = data.slice(1);
      text = readFileSync(source, "utf8");
    }
  } catch (error) {
    throw new Failure(
      `${source} cannot be read: ${messageOf(error)}.`,
      "Name a file that is there.",
    );
  }
  try {
    JSON.parse(text);
  } catch (error) {
    throw new Failure(
      `${source} is not JSON: ${messageOf(error)}.`,
      `Quote it, e.g. --data '{"a": 1}'.`,
    );
  }
  return text;
}
