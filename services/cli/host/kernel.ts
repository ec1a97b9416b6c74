import { closeSync, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { attempt, readKernel } from "./attempt.ts";
import { absent, type Finding, found, lacking } from "./finding.ts";

/** Flag, module and a micro-VM that is tried. Without them there are containers alone, so nothing of this is required. */
export async function virtualisation(): Promise<Finding[]> {
  const flags =
    readKernel("/proc/cpuinfo")
      ?.match(/^flags\s*:(.*)$/m)?.[1]
      ?.split(" ") ?? [];
  const flag = ["vmx", "svm"].find((name) => flags.includes(name));
  const modules = ["kvm_intel", "kvm_amd", "kvm_pvm"].filter((name) =>
    existsSync(`/sys/module/${name}`),
  );
  return [
    flag
      ? found("cpu virtualisation", flag)
      : absent(
          "cpu virtualisation",
          "neither vmx nor svm",
          "Turn it on in the firmware, or use a machine that has it.",
        ),
    modules.length > 0
      ? found("kvm module", modules.join(", "))
      : absent(
          "kvm module",
          "none of kvm_intel, kvm_amd, kvm_pvm",
          "modprobe kvm_intel or kvm_amd, if the kernel has it as a module.",
        ),
    kvmDevice(),
    await microvmRun(),
  ];
}

async function microvmRun(): Promise<Finding> {
  const program = join(PROJECT_ROOT, "target/release/cloister-vm");
  const { ok, text } = await attempt(program, ["run", "--root", "/", "--", "/bin/true"]);
  return ok
    ? found("micro-VM run", "ran a program in one")
    : absent(
        "micro-VM run",
        text,
        "Mend the lines above; until then a function that needs a micro-VM is refused.",
      );
}

function kvmDevice(): Finding {
  try {
    closeSync(openSync("/dev/kvm", "r+"));
    return found("kvm device", "/dev/kvm can be opened");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const remedy = "Load the KVM module, and give this machine the device if it is virtual itself.";
    return absent("kvm device", `/dev/kvm: ${code}`, remedy);
  }
}

const CONTROLLERS_V1 = ["memory", "cpu", "pids", "cpuset", "blkio"];
const CONTROLLERS_V2 = ["memory", "cpu", "pids", "cpuset", "io"];

/** Version and controllers of the control groups. io and cpuset are used where a function asks; memory, cpu and pids always. */
export function controlGroups(): Finding[] {
  const mounts = (readKernel("/proc/self/mountinfo") ?? "").split("\n").map((line) => {
    const [left = "", right = ""] = line.split(" - ");
    const [type = "", , options = ""] = right.split(" ");
    return { path: left.split(" ")[4] ?? "", type, options: options.split(",") };
  });
  const v2 = mounts.find(({ type }) => type === "cgroup2");
  const v1 = mounts.filter(({ type }) => type === "cgroup");
  const legacy = v1.length > 0;
  if (!v2 && !legacy) {
    return [lacking("cgroups", "not mounted", "mount -t cgroup2 none /sys/fs/cgroup")];
  }
  const version = legacy ? (v2 ? "v1, with an empty v2 beside it" : "v1") : "v2";
  const available = legacy
    ? v1.flatMap(({ options }) => options)
    : (readKernel(`${v2?.path}/cgroup.controllers`) ?? "").split(" ");
  const findings = [found("cgroups", version)];
  for (const name of legacy ? CONTROLLERS_V1 : CONTROLLERS_V2) {
    const needed = ["memory", "cpu", "pids"].includes(name);
    const remedy = legacy
      ? `Mount it: mount -t cgroup -o ${name} none /sys/fs/cgroup/${name}; it may be turned off on the kernel's command line.`
      : "Turn it on for this part of the tree (cgroup.subtree_control), or on the kernel's command line.";
    if (available.includes(name)) findings.push(found(`cgroup ${name}`, "available"));
    else findings.push((needed ? lacking : absent)(`cgroup ${name}`, "not available", remedy));
  }
  return findings;
}

const NAMESPACES: Record<string, string[]> = {
  user: ["--user", "--map-root-user"],
  pid: ["--pid", "--fork"],
  mount: ["--mount"],
  net: ["--net"],
  uts: ["--uts"],
  ipc: ["--ipc"],
  cgroup: ["--cgroup"],
  time: ["--time", "--fork"],
};

/** Makes one of each kind. */
export async function namespaces(): Promise<Finding[]> {
  return Promise.all(
    Object.entries(NAMESPACES).map(async ([name, args]) => {
      const { ok, text } = await attempt("unshare", [...args, "--", "true"]);
      if (ok) return found(`namespace ${name}`, "made one");
      return lacking(
        `namespace ${name}`,
        text,
        "Use a kernel with it, and root with CAP_SYS_ADMIN outside a container.",
      );
    }),
  );
}

const OVERLAY = `mount -t tmpfs tmpfs /mnt && cd /mnt && mkdir low up work top && echo x > low/f &&
mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work top && test -s top/f`;

/** Mounts one, in a mount namespace that goes with the attempt. */
export async function overlay(): Promise<Finding> {
  const { ok, text } = await attempt("unshare", ["--mount", "--", "sh", "-c", OVERLAY]);
  if (ok) return found("overlayfs", "mounted one");
  return lacking("overlayfs", text, "modprobe overlay, or use a kernel with it.");
}

export async function confinement(): Promise<Finding[]> {
  const actions = readKernel("/proc/sys/kernel/seccomp/actions_avail")?.split(" ") ?? [];
  const seccomp = ["kill_process", "errno"].every((action) => actions.includes(action))
    ? found("seccomp", `filters: ${actions.join(" ")}`)
    : lacking("seccomp", "filters are not available", "Use a kernel with CONFIG_SECCOMP_FILTER.");
  // landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) gives the version; perl is part of every Debian.
  const { ok, text } = await attempt("perl", ["-e", "print syscall(444, 0, 0, 1)"]);
  const version = ok ? Number(text) : -1;
  const landlock =
    version > 0
      ? found("Landlock", `ABI ${version}`)
      : absent(
          "Landlock",
          "not available",
          "Start the kernel with lsm=landlock,… ; sandboxes have their other walls without it.",
        );
  return [seccomp, landlock, userNamespaceLimit()];
}

function userNamespaceLimit(): Finding {
  const limit = Number(readKernel("/proc/sys/user/max_user_namespaces") ?? 0);
  const remedy = "sysctl -w user.max_user_namespaces=65536";
  return limit >= 128
    ? found("user namespaces", `at most ${limit}`)
    : lacking("user namespaces", `at most ${limit}, each sandbox needs one`, remedy);
}
