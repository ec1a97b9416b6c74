import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { startTimeOf } from "#embedded/process-life";

const processSchema = z.object({ pid: z.number().int().min(2), startTime: z.string() });
export type KnownProcess = z.infer<typeof processSchema>;

const stateSchema = z.object({
  schema: z.literal(1),
  /** `up` itself. */
  supervisor: processSchema,
  id: z.string(),
  run: z.string(),
  url: z.string(),
  port: z.number().int(),
  ready: z.boolean(),
  services: z.record(z.string(), processSchema),
});
/** DIR/up.json: the processes of the running instance, so that others find them, and the next `up` what a crash left. */
export type InstanceState = z.infer<typeof stateSchema>;

/** Undefined when there is none; a damaged one names nothing that could be trusted, so it is none either. */
export function readState(file: string): InstanceState | undefined {
  try {
    return stateSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return undefined;
  }
}

export function writeState(file: string, state: InstanceState): void {
  writePrivately(file, `${JSON.stringify(state, null, 1)}\n`);
}

/** Writes a file only root can read, whole or not at all. */
export function writePrivately(file: string, text: string): void {
  const fresh = `${file}.new`;
  rmSync(fresh, { force: true });
  writeFileSync(fresh, text, { mode: 0o600, flush: true });
  renameSync(fresh, file);
}

export const isAlive = (known: KnownProcess): boolean => startTimeOf(known.pid) === known.startTime;

/** The instance's state if its supervisor runs. */
export function runningState(file: string): InstanceState | undefined {
  const state = readState(file);
  return state && isAlive(state.supervisor) ? state : undefined;
}
