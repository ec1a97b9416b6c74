import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { writeAtomically } from "#images/store";
import { hashFile } from "#images/tree";
import { TestMachineError } from "./failure.ts";
import { hostProgram } from "./host-program.ts";

/** One archive as the machine's package lists name it. */
export interface DebianPackage {
  name: string;
  version: string;
  /** File name of the archive. */
  file: string;
  /** Hex. */
  sha256: string;
}

/** Programs that run on this machine, and the packages that bring them. */
const PROGRAMS = [
  ["/usr/bin/qemu-system-x86_64", "qemu-system-x86"],
  ["/usr/bin/mkfs.erofs", "erofs-utils"],
] as const;

const QUIET = ["-q", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0"];
const WAIT_FOR_LOCK = ["-o", "DPkg::Lock::Timeout=300"];
const REMEDY = "Check the network and /etc/apt/sources.list, run apt-get update, then try again.";

/** Installs QEMU and mkfs.erofs where they are missing: they are ordinary programs, unlike the kernel, which is only unpacked. */
export async function installPrograms(tell: (line: string) => void): Promise<void> {
  const missing = PROGRAMS.filter(([path]) => !existsSync(path)).map(([, name]) => name);
  if (missing.length === 0) return;
  tell(`installing ${missing.join(", ")}`);
  const install = [...QUIET, ...WAIT_FOR_LOCK, "install", "-y", "--no-install-recommends"];
  try {
    await hostProgram("apt-get", [...install, ...missing], { remedy: REMEDY });
  } catch {
    // The lists may be older than what the mirror still has.
    await hostProgram("apt-get", [...QUIET, ...WAIT_FOR_LOCK, "update"], { remedy: REMEDY });
    await hostProgram("apt-get", [...install, ...missing], { remedy: REMEDY });
  }
}

/**
 * The newest Debian cloud kernel and static busybox that the package lists offer, in that order. The answer is kept in `file` and asked
 * again only when the lists have changed.
 */
export async function resolvePackages(
  file: string,
  tell: (line: string) => void,
): Promise<DebianPackage[]> {
  const former = readAnswer(file);
  if (former !== undefined && former.lists === listsState()) return former.packages;
  let packages: DebianPackage[];
  try {
    packages = await askApt();
  } catch {
    tell("reading package lists");
    try {
      await hostProgram("apt-get", [...QUIET, "update"], { remedy: REMEDY });
      packages = await askApt();
    } catch (error) {
      // Without a network the machine built before is as good as it was.
      if (former === undefined) throw error;
      tell(`keeping the versions found before: ${error instanceof Error ? error.message : error}`);
      return former.packages;
    }
  }
  writeAtomically(file, JSON.stringify({ lists: listsState(), packages }, null, 1));
  return packages;
}

/** Downloads one archive into `folder`, checks its digest and unpacks it into `into`. Nothing is installed. */
export async function unpackPackage(
  found: DebianPackage,
  folder: string,
  into: string,
): Promise<void> {
  const wanted = `${found.name}=${found.version}`;
  await hostProgram("apt-get", [...QUIET, "download", wanted], { cwd: folder, remedy: REMEDY });
  const archive = join(folder, found.file);
  if (hashFile(archive) !== found.sha256) {
    throw new TestMachineError(`${found.file} has not the digest apt promised.`, REMEDY);
  }
  mkdirSync(into, { recursive: true });
  await hostProgram("dpkg-deb", ["-x", archive, into], { remedy: "Free some disk space." });
}

async function askApt(): Promise<DebianPackage[]> {
  const newest = "linux-image-cloud-amd64";
  const facts = await hostProgram("apt-cache", ["show", "--no-all-versions", newest], {
    remedy: REMEDY,
  });
  const kernel = /^Depends: (linux-image-[a-z0-9.+-]+)/m.exec(facts)?.[1];
  if (kernel === undefined) throw new TestMachineError(`apt knows no ${newest}.`, REMEDY);
  const names = [kernel, "busybox-static"];
  const uris = await hostProgram("apt-get", [...QUIET, "download", "--print-uris", ...names], {
    remedy: REMEDY,
  });
  const offered = uris.split("\n").flatMap(parseUri);
  return names.map((name) => {
    const found = offered.find((entry) => entry.name === name);
    if (found === undefined) throw new TestMachineError(`apt offers no ${name}.`, REMEDY);
    return found;
  });
}

/** A line of `apt-get download --print-uris`: 'URI' file bytes SHA256:hex */
function parseUri(line: string): DebianPackage[] {
  const [, file, sha256] = /^'[^']+' (\S+) \d+ SHA256:([0-9a-f]{64})$/.exec(line.trim()) ?? [];
  const [name, version] = file?.split("_") ?? [];
  if (file === undefined || sha256 === undefined || !name || !version) return [];
  return [{ name, version: decodeURIComponent(version), file, sha256 }];
}

/** Changes whenever apt's view of what can be had may have. */
function listsState(): string {
  return ["/var/lib/apt/lists", "/etc/apt/sources.list", "/etc/apt/sources.list.d"]
    .map((path) => (existsSync(path) ? statSync(path).mtimeMs : 0))
    .join(" ");
}

function readAnswer(file: string): { lists: string; packages: DebianPackage[] } | undefined {
  try {
    const value = JSON.parse(readFileSync(file, "utf8"));
    const sound = typeof value.lists === "string" && value.packages?.length === 2;
    return sound ? value : undefined;
  } catch {
    return undefined;
  }
}
