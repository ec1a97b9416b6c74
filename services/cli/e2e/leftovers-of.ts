import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { join } from "node:path";

/** Everything on this machine that still belongs to the instance of a data folder: processes, cgroups, mounts, sockets. Empty when it has gone. */
export function leftoversOf(data: string): string[] {
  const real = realpathSync(data);
  const id = createHash("sha256").update(real).digest("hex").slice(0, 8);
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid) continue;
    const command = read(`/proc/${pid}/cmdline`).replaceAll("\0", " ");
    const groups = read(`/proc/${pid}/cgroup`);
    const working = link(`/proc/${pid}/cwd`);
    // An instance's processes name its folder or id, sit in its cgroups, or work in its data; a zombie has none of these.
    if (
      command.includes(id) ||
      command.includes(real) ||
      groups.includes(`cloister-${id}`) ||
      working.startsWith(real)
    ) {
      found.push(`process ${pid}: ${command}`);
    }
  }
  for (const folder of cgroupFolders("/sys/fs/cgroup", 3)) {
    if (folder.includes(`cloister-${id}`)) found.push(`cgroup ${folder}`);
  }
  for (const line of read("/proc/self/mountinfo").split("\n")) {
    if (line.includes(id) || line.includes(real)) found.push(`mount ${line}`);
  }
  if (existsSync(`/run/cloister/${id}`)) found.push(`folder /run/cloister/${id}`);
  for (const name of ["up.json", "credentials.json"]) {
    if (existsSync(join(real, name))) found.push(`file ${name}`);
  }
  return found;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function cgroupFolders(folder: string, depth: number): string[] {
  if (depth === 0) return [];
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => join(folder, name))
      .flatMap((path) => [path, ...cgroupFolders(path, depth - 1)]);
  } catch {
    return [];
  }
}
