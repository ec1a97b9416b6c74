import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Placed } from "#testvm/job";
import { runProgram } from "./run-check.ts";

/** Names of the two variables, and of the test programs that heed them: those of vmm/crates/monitor/tests that compile. */
const COMPILE_INTO = "CLOISTER_GUESTS_COMPILE_INTO";
const COMPILED_IN = "CLOISTER_GUESTS_COMPILED_IN";
const TEST_PROGRAM = /^(guests|hostile|frozen|programs|inlet)-[0-9a-f]+$/;

/** What the test machine needs of the guests' programs, since it has no compiler. */
export interface GuestPrograms {
  shares: Placed[];
  env: Record<string, string>;
  [Symbol.dispose](): void;
}

/** Compiles the programs of vmm/tests with the machine's compiler. Gives the compiler's words if it fails; nothing to share if none of `tests` needs them. */
export async function compileGuestPrograms(
  tests: readonly string[],
): Promise<GuestPrograms | { failure: string }> {
  const programs = tests.filter((path) => TEST_PROGRAM.test(basename(path)));
  if (programs.length === 0) return { shares: [], env: {}, [Symbol.dispose]: () => {} };
  const folder = mkdtempSync(join(tmpdir(), "cloister-guest-programs-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  for (const program of programs) {
    const { code, output } = await runProgram(program, [], { env: { [COMPILE_INTO]: folder } });
    if (code === 0) continue;
    remove();
    return { failure: output };
  }
  const guest = "/guests";
  return {
    shares: [{ host: folder, guest }],
    env: { [COMPILED_IN]: guest },
    [Symbol.dispose]: remove,
  };
}
