import { writeFileSync } from "node:fs";
import { Failure, messageOf } from "../failure.ts";

/** Writes a report; with the flag `a` and no text it only finds out whether that will be possible. */
export function writeReport(file: string, html: string, flag: "w" | "a" = "w"): void {
  try {
    writeFileSync(file, html, { flag });
  } catch (error) {
    throw new Failure(
      `The report cannot be written: ${messageOf(error)}.`,
      "Name a file in a folder that is there.",
    );
  }
}
