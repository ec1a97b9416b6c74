import { z } from "zod";
import { sampleSchema, targetSchema } from "./sample.ts";

/** What k6 has counted itself. */
const summarySchema = z.object({
  iterations: z.number(),
  bytes: z.object({ sent: z.number(), received: z.number() }),
  /** By stream. */
  dropped: z.record(z.string(), z.number()),
});
export type K6Summary = z.infer<typeof summarySchema>;

/** What loadtests/lib/load-test.ts tells, line by line, among what k6 itself says. */
const toldSchema = z.union([
  z.tuple([z.literal("call"), sampleSchema]),
  z.tuple([
    z.literal("sending"),
    z.object({ beganAt: z.number(), targets: z.array(targetSchema) }),
  ]),
  z.tuple([z.literal("sent"), z.object({})]),
  z.tuple([z.literal("summary"), summarySchema]),
  z.tuple([z.literal("problem"), z.object({ message: z.string(), remedy: z.string() })]),
]);
export type Told = z.infer<typeof toldSchema>;

/** A longer line is none of the scripts', characters. */
const MOST_LINE = 8192;
/** Of what k6 itself says the end is kept, lines. */
const MOST_SAID = 20;

/** Cuts what k6 writes into lines, and these into what the scripts tell and what k6 says itself. */
export class K6Lines {
  readonly #onTold: (told: Told) => void;
  readonly #said: string[] = [];
  #rest = "";

  constructor(onTold: (told: Told) => void) {
    this.#onTold = onTold;
  }

  add(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = (lines.pop() ?? "").slice(-MOST_LINE);
    for (const line of lines) this.#line(line);
  }

  /** The end of what k6 itself said. */
  get said(): string {
    return [...this.#said, this.#rest].join("\n").trim();
  }

  #line(line: string): void {
    const told = line.startsWith('["') ? parse(line) : undefined;
    if (told) this.#onTold(told);
    else if (line.trim() !== "") {
      this.#said.push(line.slice(0, MOST_LINE));
      if (this.#said.length > MOST_SAID) this.#said.shift();
    }
  }
}

function parse(line: string): Told | undefined {
  try {
    return toldSchema.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}
