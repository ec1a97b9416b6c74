import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Instance, startInstance } from "#testkit/instance";
import { call, deploy } from "./client.ts";

/** What a function tries in order to get out of its container, made as raw system calls from Python. */
let instance: Instance;

const PROBE = `
import ctypes, errno, json, os, socket

libc = ctypes.CDLL(None, use_errno=True)

def sys(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return "ok" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))

def attempt(action):
    try:
        return "ok: " + str(action())[:100]
    except BaseException as error:
        return getattr(error, "errno", None) and errno.errorcode.get(error.errno) or type(error).__name__

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(address)
        return "connected"

def handler(event, context):
    port = int(event["queryStringParameters"]["port"])
    buffer = ctypes.create_string_buffer(256)
    calls = {
        "mount": sys(165, b"none", b"/tmp", b"tmpfs", 0, None),
        "umount2": sys(166, b"/tmp", 0),
        "pivot_root": sys(155, b"/", b"/tmp"),
        "chroot": sys(161, b"/tmp"),
        "open_tree": sys(428, -100, b"/", 1),
        "fsopen": sys(430, b"tmpfs", 0),
        "unshare_user": sys(272, 0x10000000),
        "unshare_mount": sys(272, 0x00020000),
        "clone_newuser": sys(56, 0x10000000 | 17, 0, 0, 0, 0),
        "clone3": sys(435, buffer, 88),
        "setns": sys(308, 0, 0),
        "ptrace_traceme": sys(101, 0, 0, 0, 0),
        "ptrace_attach_1": sys(101, 16, 1, 0, 0),
        "process_vm_readv": sys(310, 1, None, 0, None, 0, 0),
        "add_key": sys(248, b"user", b"x", b"y", 1, -3),
        "keyctl": sys(250, 0, -3, 0, 0, 0),
        "request_key": sys(249, b"user", b"x", None, -3),
        "io_uring_setup": sys(425, 8, buffer),
        "bpf": sys(321, 0, buffer, 64),
        "perf_event_open": sys(298, buffer, 0, -1, -1, 0),
        "userfaultfd": sys(323, 0),
        "init_module": sys(175, buffer, 0, b""),
        "kexec_load": sys(246, 0, 0, None, 0),
        "reboot": sys(169, 0xfee1dead, 672274793, 0, None),
        "sethostname": sys(170, b"evil", 4),
        "settimeofday": sys(164, buffer, None),
        "swapon": sys(167, b"/tmp/x", 0),
        "acct": sys(163, b"/tmp/x"),
        "quotactl": sys(179, 0, None, 0, None),
        "mknod_device": sys(133, b"/tmp/sda", 0o60600, 0x800),
        "setuid_root": sys(105, 0),
        "name_to_handle_at": sys(303, -100, b"/", buffer, buffer, 0),
        "open_by_handle_at": sys(304, -100, buffer, 0),
        "raw_socket": sys(41, socket.AF_INET, socket.SOCK_RAW, 1),
        "packet_socket": sys(41, 17, socket.SOCK_RAW, 0),
        "netlink_socket": sys(41, 16, socket.SOCK_RAW, 0),
        "vsock_socket": sys(41, 40, socket.SOCK_STREAM, 0),
        "alg_socket": sys(41, 38, 5, 0),
        "personality": sys(135, 0x0040000),
        "kill_init": sys(62, 1, 9),
        "kill_all_others": sys(62, 2, 0),
    }
    files = {
        "shadow": attempt(lambda: open("/etc/shadow").read()),
        "proc1_environ": attempt(lambda: open("/proc/1/environ").read()),
        "proc1_root": attempt(lambda: os.listdir("/proc/1/root")),
        "proc1_mem": attempt(lambda: open("/proc/1/mem", "rb").read(1)),
        "kcore": attempt(lambda: open("/proc/kcore", "rb").read(1)),
        "kmsg": attempt(lambda: open("/dev/kmsg", "rb").read(1)),
        "sysrq": attempt(lambda: open("/proc/sysrq-trigger", "w").write("h")),
        "core_pattern": attempt(lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x")),
        "hostname_sysctl": attempt(lambda: open("/proc/sys/kernel/hostname", "w").write("evil")),
        "cgroup_tree": attempt(lambda: os.listdir("/sys/fs/cgroup")),
        "write_root": attempt(lambda: open("/evil", "w")),
        "write_usr": attempt(lambda: open("/usr/evil", "w")),
        "write_fn": attempt(lambda: open("/fn/evil", "w")),
        "dev_kvm": attempt(lambda: open("/dev/kvm")),
        "dev_mem": attempt(lambda: open("/dev/mem")),
        "cgroup_of_self": open("/proc/self/cgroup").read(),
        "status": open("/proc/self/status").read(),
        "uid_map": open("/proc/self/uid_map").read(),
    }
    network = {
        "gateway_by_loopback": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
        "outside": attempt(lambda: connect(socket.AF_INET, ("192.0.2.1", 80))),
        "outside6": attempt(lambda: connect(socket.AF_INET6, ("2001:db8::1", 80))),
        "names": attempt(lambda: socket.getaddrinfo("example.invalid", 80)),
        "interfaces": attempt(lambda: [name for _, name in socket.if_nameindex()]),
    }
    lists = {
        "devices": sorted(os.listdir("/dev")),
        "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    }
    return {"calls": calls, "files": files, "lists": lists, "network": network}
`;

describe("escape attempts", { timeout: 120_000 }, () => {
  interface Findings {
    calls: Record<string, string>;
    files: Record<string, string>;
    lists: { pids: number[]; devices: string[] };
    network: Record<string, string>;
  }
  let found: Findings;

  before(async () => {
    instance = await startInstance();
    await deploy(instance, {
      name: "escape",
      runtime: "python3",
      files: { "main.py": PROBE },
      timeoutMs: 30_000,
    });
    const port = new URL(instance.url).port;
    const response = await call(instance, "escape", `/?port=${port}`);
    const text = await response.text();
    assert.equal(response.status, 200, text);
    found = JSON.parse(text) as Findings;
  });
  after(async () => {
    await instance?.stop();
  });

  test("every privileged system call is refused", () => {
    const allowed = Object.entries(found.calls).filter(
      ([name, result]) => result === "ok" && name !== "kill_init" && name !== "kill_all_others",
    );
    assert.deepEqual(allowed, []);
  });

  test("clone3 is ENOSYS, so that libc falls back to a call the filter can read", () => {
    assert.equal(found.calls.clone3, "ENOSYS");
  });

  test("no host file, other process or cgroup can be read or written", () => {
    for (const name of [
      "shadow",
      "proc1_environ",
      "proc1_root",
      "proc1_mem",
      "kcore",
      "kmsg",
      "sysrq",
      "core_pattern",
      "hostname_sysctl",
      "cgroup_tree",
      "write_root",
      "write_usr",
      "write_fn",
      "dev_kvm",
      "dev_mem",
    ]) {
      const result = found.files[name] ?? "";
      // A masked file is empty: reading it gives nothing of the host.
      assert.ok(
        !result.startsWith("ok: ") || result === "ok: " || result === "ok: b''",
        `${name}: ${result}`,
      );
    }
  });

  test("only the sandbox's own processes are visible", () => {
    assert.ok(found.lists.pids.length <= 4, JSON.stringify(found.lists.pids));
    assert.ok(found.lists.pids.every((pid) => pid < 100));
  });

  test("no capability is left, seccomp filters, no new privileges", () => {
    const status = found.files.status ?? "";
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      assert.match(status, new RegExp(`^${set}:\\s+0000000000000000$`, "m"));
    }
    assert.match(status, /^Seccomp:\s+2$/m);
    assert.match(status, /^NoNewPrivs:\s+1$/m);
  });

  test("the function is not root, inside or outside", () => {
    assert.match(found.files.status ?? "", /^Uid:\s+1000\s/m);
    const outside = Number((found.files.uid_map ?? "").trim().split(/\s+/)[1]);
    assert.ok(outside >= 100_000 || outside === 0, `mapped to ${outside}`);
    assert.match(found.files.uid_map ?? "", /^\s*1000\s+\d+\s+1\s*$/);
  });

  test("the cgroup path shows nothing of the host", () => {
    for (const line of (found.files.cgroup_of_self ?? "").trim().split("\n")) {
      assert.match(line, /:\/$/, line);
    }
  });

  test("only harmless devices are there", () => {
    const harmless = [
      "fd",
      "full",
      "null",
      "ptmx",
      "pts",
      "random",
      "shm",
      "stderr",
      "stdin",
      "stdout",
      "urandom",
      "zero",
    ];
    assert.deepEqual(
      found.lists.devices.filter((name) => !harmless.includes(name)),
      [],
    );
  });

  test("the network is not reachable, the host's loopback neither", () => {
    assert.equal(found.network.gateway_by_loopback, "ECONNREFUSED");
    assert.equal(found.network.outside, "ENETUNREACH");
    assert.ok(!(found.network.outside6 ?? "").startsWith("ok"));
    assert.ok(!(found.network.names ?? "").startsWith("ok"));
  });
});
