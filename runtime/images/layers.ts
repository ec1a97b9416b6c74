import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, join } from "node:path";
import { readElf } from "./elf.ts";
import { BUNDLER, bundleRunner } from "./node-runner.ts";
import { BASE_PACKAGES, LIBC_PACKAGES, type PackageCache } from "./packages.ts";
import { ImageBuildError, run } from "./progress.ts";
import type { ImageStore, Layer } from "./store.ts";
import {
  hashFile,
  hashText,
  listTree,
  placeFile,
  placeLink,
  placeText,
  placeTree,
} from "./tree.ts";

/** Where layers come from and go to. */
export interface Recipe {
  store: ImageStore;
  packages: PackageCache;
  /** Root of the source tree: node_modules, target and runtime are read below it. */
  source: string;
  force: boolean;
}

const LIBRARIES = "usr/lib/x86_64-linux-gnu";
const LOADER = "ld-linux-x86-64.so.2";

/**
 * What a program for glibc may ask of the system without bringing it: the loader, libc and its parts, the C++ and GCC
 * run-time libraries (Node, and wheels that follow manylinux, link to them) and zlib.
 */
const LIBC_SONAMES = [
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libpthread.so.0",
  "librt.so.1",
  "libutil.so.1",
  "libresolv.so.2",
  "libgcc_s.so.1",
  "libstdc++.so.6",
  "libatomic.so.1",
  "libz.so.1",
];

/** Parts of the standard library a function cannot use: tests, tools, and modules whose libraries are left out. */
const PYTHON_LEFT_OUT = [
  /^(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|distutils|pydoc_data|curses)$/,
  /(^|\/)(tests?|__pycache__)$/,
  /^(turtle\.py|sitecustomize\.py|EXTERNALLY-MANAGED|LICENSE\.txt)$/,
  /^lib-dynload\/(_curses|_curses_panel|readline|nis|ossaudiodev|_dbm|_gdbm|_tkinter|_test\w*|_ctypes_test|_xx\w*|xx\w*)\./,
];

/** Folders, accounts, certificates and time zones: the lowest layer of every image. */
export async function baseLayer(recipe: Recipe): Promise<Layer> {
  const key = hashText(
    (await recipe.packages.versions(BASE_PACKAGES)).join("\n") + builderDigest(),
  );
  return recipe.store.layer("base", key, recipe.force, async (root) => {
    const unpacked = recipe.store.scratch("unpack");
    await recipe.packages.unpack(BASE_PACKAGES, unpacked);
    // Mount points of the sandbox, and the folders later layers fill.
    for (const path of [
      "proc",
      "dev/shm",
      "dev/pts",
      "tmp",
      "fn",
      "cloister",
      "run",
      "var",
      "usr/sbin",
    ]) {
      mkdirSync(join(root, path), { recursive: true });
    }
    for (const path of ["usr/bin", LIBRARIES, "usr/lib64"]) {
      mkdirSync(join(root, path), { recursive: true });
    }
    for (const path of ["bin", "sbin", "lib", "lib64"]) placeLink(root, path, `usr/${path}`);
    placeLink(root, "var/tmp", "/tmp");
    placeText(
      root,
      "etc/passwd",
      "root:x:0:0:root:/:/usr/sbin/nologin\n" +
        "function:x:1000:1000:function:/tmp:/usr/sbin/nologin\n" +
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    );
    placeText(root, "etc/group", "root:x:0:\nfunction:x:1000:\nnogroup:x:65534:\n");
    placeText(root, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    placeText(root, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    placeText(root, "etc/resolv.conf", "");
    placeLink(root, "etc/localtime", "/usr/share/zoneinfo/UTC");
    // posix/ repeats the tree; right/ counts leap seconds, which no clock here does.
    placeTree(
      root,
      "usr/share/zoneinfo",
      join(unpacked, "tzdata/usr/share/zoneinfo"),
      (path) => !/^(posix|right|localtime|posixrules)$/.test(path),
    );
    placeText(root, "etc/ssl/certs/ca-certificates.crt", readCertificates(unpacked));
    placeLink(root, "etc/ssl/cert.pem", "certs/ca-certificates.crt");
    // Where Debian's OpenSSL looks first.
    placeLink(root, "usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt");
    placeLink(root, "usr/lib/ssl/certs", "/etc/ssl/certs");
    rmSync(unpacked, { recursive: true });
  });
}

function readCertificates(unpacked: string): string {
  const folder = join(unpacked, "ca-certificates/usr/share/ca-certificates");
  const files = listTree(folder).filter((path) => path.endsWith(".crt"));
  return files.map((path) => `${readFileSync(join(folder, path), "utf8").trim()}\n`).join("");
}

/** The dynamic loader and the libraries of LIBC_SONAMES, and the loader's list of them. */
export async function libcLayer(recipe: Recipe): Promise<Layer> {
  const key = hashText(
    (await recipe.packages.versions(LIBC_PACKAGES)).join("\n") + builderDigest(),
  );
  return recipe.store.layer("libc", key, recipe.force, async (root) => {
    const unpacked = recipe.store.scratch("unpack");
    const pool = libraryPool(await recipe.packages.unpack(LIBC_PACKAGES, unpacked));
    for (const soname of [LOADER, ...LIBC_SONAMES]) placeLibrary(root, soname, pool);
    chmodSync(join(root, LIBRARIES, LOADER), 0o755);
    placeLink(root, `usr/lib64/${LOADER}`, `../lib/x86_64-linux-gnu/${LOADER}`);
    // Without its list the loader asks for the first library in ten folders that are not there.
    placeText(root, "etc/ld.so.conf", `/${LIBRARIES}\n`);
    await run("/sbin/ldconfig", ["-r", root, "-X"], {
      remedy: "Build images as root; install libc-bin: apt-get install libc-bin",
    });
    rmSync(join(root, "var"), { recursive: true, force: true });
    rmSync(unpacked, { recursive: true });
  });
}

/** One Node version: the binary and nothing else, without its symbol table. */
export async function nodeLayer(recipe: Recipe, major: string): Promise<Layer> {
  const home = join(recipe.source, "node_modules", `node-${major}`);
  const binary = join(home, "bin/node");
  if (!existsSync(binary)) {
    throw new ImageBuildError(`Node ${major} is not installed at ${binary}.`, "Run npm ci.");
  }
  // Hashing 100 MB at every start would cost more than all else: version, size and time stand for the content.
  const stat = statSync(binary);
  const { version } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  const key = hashText([version, stat.size, stat.mtimeMs, builderDigest()].join("\n"));
  return recipe.store.layer(`node${major}`, key, recipe.force, async (root) => {
    placeFile(root, "usr/bin/node", binary);
    await run("strip", ["--strip-all", join(root, "usr/bin/node")], {
      remedy: "Install binutils: apt-get install binutils",
    });
  });
}

/** CPython of the machine's distribution with its standard library, compiled ahead. Gives the interpreter's path, too. */
export async function pythonLayer(
  recipe: Recipe,
  libc: Layer,
): Promise<Layer & { python: string }> {
  const { python } = await recipe.packages.resolve();
  const names = await recipe.packages.pythonPackages();
  const inputs = [...(await recipe.packages.versions(names)), libc.digest, builderDigest()];
  const layer = await recipe.store.layer(
    "python",
    hashText(inputs.join("\n")),
    recipe.force,
    async (root) => {
      const unpacked = recipe.store.scratch("unpack");
      const folders = await recipe.packages.unpack(names, unpacked);
      const keep = (path: string) => !PYTHON_LEFT_OUT.some((pattern) => pattern.test(path));
      placeFile(root, `usr/bin/${python}`, join(unpacked, `${python}-minimal/usr/bin/${python}`));
      placeLink(root, "usr/bin/python3", python);
      for (const folder of folders) {
        const library = join(folder, "usr/lib", python);
        if (existsSync(library)) placeTree(root, `usr/lib/${python}`, library, keep);
      }
      for (const path of listTree(root).filter((entry) => entry !== "usr/bin/python3")) {
        // Debian points some entries at /etc, which the image leaves out.
        if (lstatSync(join(root, path)).isSymbolicLink()) rmSync(join(root, path));
      }
      placeNeeded(root, libraryPool(folders), recipe.store.layerPath(libc.digest));
      await compilePython(
        root,
        recipe.store.layerPath(libc.digest),
        `usr/lib/${python}`,
        root,
        python,
      );
      rmSync(unpacked, { recursive: true });
    },
  );
  return { ...layer, python };
}

/**
 * Compiles the modules below `folder` of `target` with the interpreter of `pythonRoot`. The compiled files are trusted without a look
 * at the source (unchecked hash): the image is read-only, and a time stamp would make every build differ.
 */
async function compilePython(
  pythonRoot: string,
  libcRoot: string,
  folder: string,
  target: string,
  python: string,
): Promise<void> {
  const libraries = [join(libcRoot, LIBRARIES), join(pythonRoot, LIBRARIES)].join(":");
  const interpreter = join(pythonRoot, "usr/bin", python);
  const compile = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"];
  await run(
    join(libcRoot, LIBRARIES, LOADER),
    ["--library-path", libraries, interpreter, "-S", "-s", ...compile].concat(
      ["-s", target, "-p", "/"],
      join(target, folder),
    ),
    // A fixed hash seed: the order of sets is written into compiled files.
    {
      env: { PYTHONHASHSEED: "0", LC_ALL: "C.UTF-8" },
      remedy: "Report this with the output above.",
    },
  );
}

/** The Node runner at /cloister, as its folder has it but for tests and texts. */
export async function nodeRunnerLayer(recipe: Recipe): Promise<Layer> {
  return folderLayer(
    recipe,
    "runner-node",
    "runtime/runners/node",
    "runner.mjs",
    bundleRunner,
    BUNDLER,
  );
}

/** The Python runner at /cloister, compiled. */
export async function pythonRunnerLayer(
  recipe: Recipe,
  libc: Layer,
  python: Layer & { python: string },
): Promise<Layer> {
  return folderLayer(
    recipe,
    "runner-python",
    "runtime/runners/python",
    "runner.py",
    async (root) => {
      const libcRoot = recipe.store.layerPath(libc.digest);
      const pythonRoot = recipe.store.layerPath(python.digest);
      await compilePython(pythonRoot, libcRoot, "cloister", root, python.python);
    },
    python.digest,
  );
}

async function folderLayer(
  recipe: Recipe,
  name: string,
  folder: string,
  main: string,
  finish: (root: string) => Promise<void> | void,
  extraKey = "",
): Promise<Layer> {
  const from = join(recipe.source, folder);
  if (!existsSync(join(from, main))) {
    throw new ImageBuildError(`${join(folder, main)} is missing.`, "Restore the source tree.");
  }
  const keep = (path: string) =>
    !/(^|\/)(__pycache__|node_modules|tests?|fixtures|\..*)$|(^|[/_.])test[._]|\.(md|ts|toml)$|^flags\.json$/.test(
      path,
    );
  const files = listTree(from).filter((path) =>
    path.split("/").every((_, at, parts) => keep(parts.slice(0, at + 1).join("/"))),
  );
  const contents = files.map((path) => {
    const full = join(from, path);
    return `${path}\0${statSync(full).isFile() ? hashFile(full) : ""}`;
  });
  const key = hashText([...contents, extraKey, builderDigest()].join("\n"));
  return recipe.store.layer(name, key, recipe.force, async (root) => {
    placeTree(root, "cloister", from, keep);
    await finish(root);
  });
}

/** The binary runner, linked statically. */
export async function binaryRunnerLayer(recipe: Recipe): Promise<Layer> {
  const program = join(recipe.source, BINARY_RUNNER);
  if (!existsSync(program)) {
    throw new ImageBuildError(
      `The binary runner is not built: ${BINARY_RUNNER} is missing.`,
      "Build it: ./cloister setup",
    );
  }
  const key = hashText(hashFile(program) + builderDigest());
  return recipe.store.layer("runner-binary", key, recipe.force, async (root) => {
    if (readElf(program)?.interpreter) {
      throw new ImageBuildError(
        "The binary runner is not linked statically.",
        "Build it: ./cloister setup",
      );
    }
    placeFile(root, "cloister/runner", program);
    await run("strip", ["--strip-all", join(root, "cloister/runner")], {
      remedy: "Install binutils: apt-get install binutils",
    });
  });
}

/** Where set-up has cargo build it (.cargo/programs.sh links it). */
const BINARY_RUNNER = "target/release/cloister-binary-runner";

/** Throws unless every ELF file in the given layers finds its loader and libraries in them. */
export function checkLibraries(image: string, roots: string[]): void {
  const files = roots.flatMap((root) => listTree(root).map((path) => join(root, path)));
  const names = new Set(files.map((path) => basename(path)));
  for (const path of files.filter((file) => lstatSync(file).isFile())) {
    const elf = readElf(path);
    const wanted = [
      ...(elf?.needed ?? []),
      ...(elf?.interpreter ? [basename(elf.interpreter)] : []),
    ];
    const missing = wanted.find((soname) => !names.has(soname));
    if (missing) {
      throw new ImageBuildError(
        `In image ${image}, ${basename(path)} needs ${missing}, which no layer has.`,
        "Add its package to runtime/images/packages.ts.",
      );
    }
  }
}

/** Shared libraries of unpacked packages by file name. */
function libraryPool(folders: string[]): Map<string, string> {
  const pool = new Map<string, string>();
  for (const folder of folders) {
    // Before the usr merge packages have lib/, after it usr/lib/.
    for (const place of ["lib/x86_64-linux-gnu", LIBRARIES]) {
      const path = join(folder, place);
      if (!existsSync(path)) continue;
      for (const name of readdirSync(path).filter((entry) => entry.includes(".so"))) {
        if (!existsSync(join(path, name))) continue;
        const real = realpathSync(join(path, name));
        // An absolute link in a package points into this machine's own files.
        if (real.startsWith(join(realpathSync(folder), "/"))) pool.set(name, real);
      }
    }
  }
  return pool;
}

function placeLibrary(root: string, soname: string, pool: Map<string, string>): void {
  const from = pool.get(soname);
  if (!from) {
    throw new ImageBuildError(
      `No package has the library ${soname}.`,
      "Add its package to runtime/images/packages.ts.",
    );
  }
  placeFile(root, join(LIBRARIES, soname), from);
}

/** Adds to `root` the libraries its ELF files need and `lower` does not have, and what those need in turn. */
function placeNeeded(root: string, pool: Map<string, string>, lower: string): void {
  const there = new Set(listTree(lower).map((path) => basename(path)));
  const queue = listTree(root)
    .map((path) => join(root, path))
    .filter((path) => lstatSync(path).isFile());
  for (let path = queue.pop(); path; path = queue.pop()) {
    for (const soname of readElf(path)?.needed ?? []) {
      if (there.has(soname)) continue;
      there.add(soname);
      placeLibrary(root, soname, pool);
      queue.push(join(root, LIBRARIES, soname));
    }
  }
}

let builder: string | undefined;

/** Digest of the builder itself: a layer made by another recipe is another layer. */
function builderDigest(): string {
  const files = ["elf.ts", "layers.ts", "node-runner.ts", "tree.ts", "packages.ts"];
  builder ??= hashText(files.map((file) => hashFile(join(import.meta.dirname, file))).join("\n"));
  return builder;
}
