import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { findRunsc } from "./runsc.ts";

describe("runsc", { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "cloister-find-runsc-"));
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** A program that says it is this runsc, and does with `run` what the lines say. */
  const broken = (name: string, help: string, run: string): string => {
    const path = join(folder, name);
    const text = `#!/bin/sh
case "$*" in
--version) echo "runsc version release-1.0" ;;
"help run") echo "  ${help} value" ;;
*" delete "*) ;;
*) ${run} ;;
esac
`;
    writeFileSync(path, text, { mode: 0o755 });
    return path;
  };

  test("one clause says why there is none", async () => {
    const log = "W0101 12:00:00.123456   4711 util.go:64] FATAL ERROR: no such platform";
    const fails = broken("fails", "-pass-fd", `printf '\\n%s\\nmore\\n' '${log}' >&2; exit 128`);
    const old = broken("old", "-pid-file", "true");
    const cases: [env: { CLOISTER_RUNSC?: string; PATH?: string }, lack: string][] = [
      [
        { PATH: folder },
        "runsc is not installed: it is not in PATH, nor does CLOISTER_RUNSC name it",
      ],
      [
        { CLOISTER_RUNSC: "/nowhere/runsc" },
        "CLOISTER_RUNSC names /nowhere/runsc, which is no program",
      ],
      [{ CLOISTER_RUNSC: "/bin/true" }, "/bin/true does not say that it is runsc: no version"],
      [
        { CLOISTER_RUNSC: folder },
        `${folder} does not say that it is runsc: spawn ${folder} EACCES`,
      ],
      [
        { CLOISTER_RUNSC: old },
        `runsc found at ${old} (release-1.0), but it is too old to hand an open socket to a container (run --pass-fd)`,
      ],
      [
        { CLOISTER_RUNSC: fails },
        `runsc found at ${fails} (release-1.0), but does not start: FATAL ERROR: no such platform`,
      ],
    ];
    for (const [env, lack] of cases) assert.deepEqual(await findRunsc(env), { lack });
  });

  test("one that cannot set limits is used without them, which is said", async () => {
    const path = broken(
      "runsc",
      "-pass-fd",
      `case "$*" in *--ignore-cgroups*) ;; *) echo "no cgroups here" >&2; exit 1 ;; esac`,
    );
    const found = await findRunsc({ PATH: `/nowhere:${folder}` });
    assert.deepEqual(found, {
      path,
      version: "release-1.0",
      global: ["--platform=systrap", "--network=none", "--ignore-cgroups"],
      unlimited: "no cgroups here",
    });
  });

  test("this machine's own runs a program, and leaves nothing", async (t) => {
    const trials = join(folder, "trials");
    mkdirSync(trials);
    const before = process.env.TMPDIR;
    process.env.TMPDIR = trials;
    const own = await findRunsc().finally(() => {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    });
    assert.deepEqual(readdirSync(trials), []);
    if ("lack" in own) return t.skip(own.lack);
    assert.match(own.version, /\S/);
  });
});
