//! An instance of its own, an image of busybox, and programs run in it.
// Each test binary uses a part of it.
#![allow(dead_code)]
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use cloister_container::{
    CpuWeight, ExitReport, Hierarchy, Instance, Limits, Sandbox, SpawnError, Spec, Stdio, spawn,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use tempfile::TempDir;

/// Host ids of this test's sandboxes; far from what services use.
static NEXT_ID: AtomicU32 = AtomicU32::new(900_000);

pub struct Ground {
    pub instance: Option<Instance>,
    pub id: String,
    pub folder: TempDir,
    pub layers: Vec<PathBuf>,
}

pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub report: ExitReport,
}

/// A sandbox and the outside ends of its descriptors.
#[derive(Debug)]
pub struct Live {
    pub sandbox: Sandbox,
    pub socket: UnixStream,
    pub stdout: fs::File,
    pub stderr: fs::File,
}

pub const LIMITS: Limits = Limits {
    memory_bytes: 64 << 20,
    cpu_milli: 1000,
    pids: 32,
    tmp_bytes: 4 << 20,
    cpuset: None,
    io: None,
    cpu_weight: CpuWeight::Serving,
};

impl Ground {
    /// Cells in use: those of waiting cradles have no limit of processes yet.
    pub fn cells(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchy = if root.join("pids").is_dir() {
            root.join("pids")
        } else {
            root.to_path_buf()
        };
        let folder = hierarchy.join(format!("cloister-{}", self.id));
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                fs::read_to_string(path.join("pids.max")).is_ok_and(|max| max.trim() != "max")
            })
            .collect()
    }

    /// A file of the only cell in use.
    pub fn limit_file(&self, name: &str) -> String {
        let [cell] = self.cells().try_into().unwrap();
        fs::read_to_string(cell.join(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn v1_file(&self, controller: &str, name: &str) -> Option<String> {
        let [cell] = self.cells().try_into().unwrap();
        let end: PathBuf = cell
            .components()
            .rev()
            .take(2)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let file = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(end)
            .join(name);
        Some(fs::read_to_string(file).ok()?.trim().to_owned())
    }

    /// Of the only cell in use.
    pub fn cpu_weight(&self) -> u32 {
        let v1 = self.v1_file("cpu", "cpu.shares");
        let text = v1.unwrap_or_else(|| self.limit_file("cpu.weight"));
        text.parse().unwrap()
    }

    /// Memory, memory with swap (or what says that there is none), quota and period of the only cell in use.
    pub fn limits(&self) -> (String, String, String) {
        let Some(memory) = self.v1_file("memory", "memory.limit_in_bytes") else {
            let [memory, swap, cpu] =
                ["memory.max", "memory.swap.max", "cpu.max"].map(|name| self.limit_file(name));
            return (memory, swap, cpu);
        };
        let swap = self.v1_file("memory", "memory.memsw.limit_in_bytes");
        let swap = swap.unwrap_or_else(|| {
            format!(
                "swappiness {}",
                self.v1_file("memory", "memory.swappiness").unwrap()
            )
        });
        let cpu = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            .map(|name| self.v1_file("cpu", name).unwrap());
        (memory, swap, cpu.join(" "))
    }
}

fn unique() -> u32 {
    // Tests of one binary run in one process, binaries one after the other.
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Ground {
    pub fn lay() -> Ground {
        let number = unique();
        let id = format!("{:08x}", (std::process::id() << 12) ^ number);
        let (instance, found) = Instance::claim(Hierarchy::detect().unwrap(), &id).unwrap();
        assert_eq!((found.processes, found.cgroups, found.mounts), (0, 0, 0));
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let layers = vec![
            base_layer(&folder.path().join("base")),
            top_layer(&folder.path().join("top")),
        ];
        Ground {
            instance: Some(instance),
            id,
            folder,
            layers,
        }
    }

    pub fn instance(&self) -> &Instance {
        self.instance.as_ref().unwrap()
    }

    pub fn spec<'a>(
        &'a self,
        argv: &'a [String],
        env: &'a [(String, String)],
        limits: Limits,
    ) -> Spec<'a> {
        Spec {
            id: "sb-test",
            label: "test@1",
            layers: &self.layers,
            argv,
            env,
            host_id: unique(),
            limits,
            bundle: None,
            monitor: None,
        }
    }

    pub fn start(&self, spec: &Spec<'_>) -> Live {
        self.try_start(spec).unwrap()
    }

    pub fn try_start(&self, spec: &Spec<'_>) -> Result<Live, SpawnError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (stdout, stdout_in) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (stderr, stderr_in) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let stdio = Stdio {
            fd3: OwnedFd::from(theirs),
            stdout: stdout_in,
            stderr: stderr_in,
        };
        let sandbox = spawn(self.instance(), spec, stdio)?;
        Ok(Live {
            sandbox,
            socket: ours,
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    /// What a shell script prints.
    pub fn out(&self, script: &str) -> String {
        self.run(script).stdout
    }

    /// Runs a shell script to its end.
    pub fn run(&self, script: &str) -> Run {
        self.run_limited(script, LIMITS)
    }

    pub fn run_limited(&self, script: &str, limits: Limits) -> Run {
        let argv = shell(script);
        self.start(&self.spec(&argv, &[], limits)).finish()
    }
}

impl Live {
    /// Waits for its end, at most 60 s, so that a hang is a failure.
    pub fn finish(mut self) -> Run {
        let mut stdout = String::new();
        let mut stderr = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        wait_end(&self.sandbox);
        Run {
            stdout,
            stderr,
            report: self.sandbox.reap(),
        }
    }
}

pub fn wait_end(sandbox: &Sandbox) {
    let pidfd = sandbox.pidfd();
    let mut wait = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = poll(
        &mut wait,
        Some(&Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        }),
    )
    .unwrap();
    assert_eq!(ready, 1, "the sandbox has ended");
}

pub fn shell(script: &str) -> Vec<String> {
    ["/bin/busybox", "sh", "-c", script]
        .map(str::to_owned)
        .to_vec()
}

/// Folders as the images' lowest layer has them, and busybox.
fn base_layer(path: &Path) -> PathBuf {
    for name in ["bin", "dev", "fn", "proc", "tmp", "etc"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", path.join("bin/busybox")).expect("busybox-static is installed");
    for name in [
        "sh",
        "ls",
        "cat",
        "mount",
        "id",
        "hostname",
        "ip",
        "dd",
        "ps",
        "kill",
        "sleep",
        "mkdir",
        "head",
        "tail",
        "wc",
        "cut",
        "grep",
        "readlink",
        "true",
        "setsid",
        "unshare",
        "nsenter",
        "chroot",
        "mknod",
        "umount",
        "date",
        "chown",
        "renice",
        "swapoff",
        "pivot_root",
        "insmod",
        "reboot",
    ] {
        symlink("busybox", path.join("bin").join(name)).unwrap();
    }
    path.to_path_buf()
}

fn top_layer(path: &Path) -> PathBuf {
    fs::create_dir_all(path.join("etc")).unwrap();
    fs::write(path.join("etc/layer"), "top").unwrap();
    path.to_path_buf()
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take()
            && let Err(error) = instance.remove()
            && !std::thread::panicking()
        {
            panic!("the instance could not be removed: {error}");
        }
    }
}
