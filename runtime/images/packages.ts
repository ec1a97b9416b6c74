import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { ImageBuildError, type Progress, run } from "./progress.ts";
import { writeAtomically } from "./store.ts";
import { hashFile } from "./tree.ts";

/** One Debian package as the machine's package lists name it. */
export interface Package {
  name: string;
  version: string;
  /** File name of the archive. */
  file: string;
  sha256: string;
}

export interface Resolution {
  /** State of the package lists this was read from. */
  key: string;
  /** As in `python3.11`. */
  python: string;
  packages: Package[];
}

/** Packages of the base and libc layers. */
export const BASE_PACKAGES = ["ca-certificates", "tzdata"];
export const LIBC_PACKAGES = ["libc6", "libgcc-s1", "libstdc++6", "libatomic1", "zlib1g"];

/**
 * Libraries behind standard modules that a function without terminal, X or NIS has no use for
 * (curses, readline, tkinter, nis, dbm.bsd) and what only they pull in.
 */
const PYTHON_LEFT_OUT =
  /^(libdb5|libdb4|libncurses|libnsl|libreadline|libtinfo|libtirpc|libgdbm|media-types|readline-)/;

const OPTIONS = ["-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0"];
const REMEDY = "Check the network and /etc/apt/sources.list, run apt-get update, then try again.";

/** Finds the packages and keeps their archives; nothing is ever installed on the machine. */
export class PackageCache {
  readonly #directory: string;
  readonly #progress: Progress;
  #resolution: Resolution | undefined;

  constructor(directory: string, progress: Progress) {
    this.#directory = directory;
    this.#progress = progress;
    mkdirSync(join(directory, "debs"), { recursive: true });
  }

  /**
   * The newest versions the machine's package lists offer. Asked again only when the lists have changed; if they
   * cannot be read then, the former answer stands and a progress line says so.
   */
  async resolve(): Promise<Resolution> {
    if (this.#resolution) return this.#resolution;
    const file = join(this.#directory, "packages.json");
    const key = listsState();
    const former = readResolution(file);
    if (former?.key === key) {
      this.#resolution = former;
      return former;
    }
    try {
      this.#resolution = await this.#ask(key);
    } catch (error) {
      if (!former) throw error;
      const why = error instanceof Error ? error.message : String(error);
      this.#progress(`packages: keeping the versions found before (${why})`);
      this.#resolution = former;
      return former;
    }
    writeAtomically(file, JSON.stringify(this.#resolution, null, 1));
    return this.#resolution;
  }

  /** `name version` lines of some packages: an input of the layers made from them. */
  async versions(names: string[]): Promise<string[]> {
    const { packages } = await this.resolve();
    return names.map((name) => {
      const found = packages.find((entry) => entry.name === name);
      if (!found) throw new ImageBuildError(`Package ${name} is in no package list.`, REMEDY);
      return `${name} ${found.version} ${found.sha256}`;
    });
  }

  /** Names of the packages the Python layer is made from. */
  async pythonPackages(): Promise<string[]> {
    const { packages } = await this.resolve();
    const others = new Set([...BASE_PACKAGES, ...LIBC_PACKAGES]);
    return packages.map((entry) => entry.name).filter((name) => !others.has(name));
  }

  /** Downloads what is missing and unpacks packages into `into`/<name>. Gives the folders. */
  async unpack(names: string[], into: string): Promise<string[]> {
    const archives = await this.#fetch(names);
    const folders: string[] = [];
    for (const [name, archive] of archives) {
      const folder = join(into, name);
      mkdirSync(folder, { recursive: true });
      await run("dpkg-deb", ["-x", archive, folder], {
        remedy: "Free some disk space, try again.",
      });
      folders.push(folder);
    }
    return folders;
  }

  /** Removes archives no layer is made from any more. */
  prune(): void {
    const keep = new Set(this.#resolution?.packages.map((entry) => entry.file));
    for (const file of readdirSync(join(this.#directory, "debs"))) {
      if (!keep.has(file)) rmSync(join(this.#directory, "debs", file), { force: true });
    }
  }

  async #ask(key: string): Promise<Resolution> {
    this.#progress("packages: asking apt for versions");
    let facts: string;
    try {
      facts = await this.#aptFacts();
    } catch {
      await this.#update();
      facts = await this.#aptFacts();
    }
    const python = /^(?:Pre-)?Depends:.*?\b(python3\.\d+)-minimal\b/m.exec(facts)?.[1];
    if (!python) throw new ImageBuildError("apt knows no Python 3 package.", REMEDY);
    const names = [
      ...BASE_PACKAGES,
      ...LIBC_PACKAGES,
      ...(await this.#pythonClosure(python)).filter((name) => !LIBC_PACKAGES.includes(name)),
    ];
    const uris = await run("apt-get", [...OPTIONS, "download", "--print-uris", ...names], {
      remedy: REMEDY,
    });
    const packages = uris.split("\n").flatMap((line) => parseUri(line));
    packages.sort((a, b) => (a.name < b.name ? -1 : 1));
    const missing = names.filter((name) => !packages.some((entry) => entry.name === name));
    if (missing.length > 0) {
      throw new ImageBuildError(`apt offers no archive of ${missing.join(", ")}.`, REMEDY);
    }
    return { key: listsState() === key ? key : listsState(), python, packages };
  }

  #aptFacts(): Promise<string> {
    return run(
      "apt-cache",
      ["show", "--no-all-versions", "python3-minimal", "tzdata", "libatomic1"],
      {
        remedy: REMEDY,
      },
    );
  }

  async #update(): Promise<void> {
    this.#progress("packages: apt-get update");
    await run("apt-get", [...OPTIONS, "-q", "update"], { remedy: REMEDY });
  }

  /** The packages of the interpreter and the libraries below it, by their Depends fields. */
  async #pythonClosure(python: string): Promise<string[]> {
    const roots = [`${python}-minimal`, `lib${python}-minimal`, `lib${python}-stdlib`];
    const text = await run("apt-cache", ["depends", "--recurse", "--important", ...roots], {
      remedy: REMEDY,
    });
    const graph = new Map<string, string[]>();
    let owner: string[] = [];
    for (const line of text.split("\n")) {
      const dependency = /^\s+\|?(?:Pre)?Depends: ([^<\s]+)/.exec(line)?.[1];
      if (dependency) owner.push(dependency);
      else if (/^\S/.test(line)) {
        owner = graph.get(line.trim()) ?? [];
        graph.set(line.trim(), owner);
      }
    }
    const found = new Set<string>();
    const visit = (name: string) => {
      const wanted = roots.includes(name) || /^lib|^zlib/.test(name);
      if (!wanted || PYTHON_LEFT_OUT.test(name) || name.includes(":") || found.has(name)) return;
      found.add(name);
      for (const next of graph.get(name) ?? []) visit(next);
    };
    roots.forEach(visit);
    return [...found];
  }

  async #fetch(names: string[], again = true): Promise<Map<string, string>> {
    const { packages } = await this.resolve();
    const wanted = packages.filter((entry) => names.includes(entry.name));
    const path = (entry: Package) => join(this.#directory, "debs", entry.file);
    const whole = (entry: Package) =>
      existsSync(path(entry)) && hashFile(path(entry)) === entry.sha256;
    const missing = wanted.filter((entry) => !whole(entry));
    if (missing.length > 0) {
      this.#progress(`packages: downloading ${missing.map((entry) => entry.name).join(" ")}`);
      for (const entry of missing) rmSync(path(entry), { force: true });
      try {
        await run(
          "apt-get",
          [...OPTIONS, "download", ...missing.map((entry) => `${entry.name}=${entry.version}`)],
          { cwd: join(this.#directory, "debs"), remedy: REMEDY },
        );
      } catch (error) {
        if (!again) throw error;
        // A mirror drops a version soon after it is superseded: read newer lists once.
        await this.#update();
        this.#resolution = await this.#ask(listsState());
        writeAtomically(join(this.#directory, "packages.json"), JSON.stringify(this.#resolution));
        return this.#fetch(names, false);
      }
      const broken = missing.find((entry) => !whole(entry));
      if (broken) {
        throw new ImageBuildError(
          `The archive of ${broken.name} has not the digest apt promised.`,
          REMEDY,
        );
      }
    }
    return new Map(wanted.map((entry) => [entry.name, path(entry)]));
  }
}

/** A line of `apt-get download --print-uris`: 'URI' file bytes SHA256:hex */
function parseUri(line: string): Package[] {
  const match = /^'[^']+' (\S+) \d+ SHA256:([0-9a-f]{64})$/.exec(line.trim());
  const [, file, sha256] = match ?? [];
  if (!file || !sha256) return [];
  const [name, version] = basename(file, ".deb").split("_");
  if (!name || !version) return [];
  return [{ name, version: decodeURIComponent(version), file, sha256 }];
}

function listsState(): string {
  const folders = ["/var/lib/apt/lists", "/etc/apt/sources.list", "/etc/apt/sources.list.d"];
  return folders.map((path) => (existsSync(path) ? statSync(path).mtimeMs : 0)).join(" ");
}

function readResolution(file: string): Resolution | undefined {
  try {
    const value: Resolution = JSON.parse(readFileSync(file, "utf8"));
    const sound =
      typeof value.key === "string" &&
      /^python3\.\d+$/.test(value.python) &&
      value.packages.length > 0;
    return sound ? value : undefined;
  } catch {
    return undefined;
  }
}
