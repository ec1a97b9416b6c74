//! /proc: what runtimes read of themselves and of the machine.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use vmm_abi::{Errno, Prot, S_IFLNK, Stat};
use vmm_memory::{Kind, Vma};

use super::Node;
use super::text::{DynamicChildren, StaticDir, TextNode};
use crate::Kernel;
use crate::file::{File, OpenFile};

type Made = Result<Vec<u8>, Errno>;

fn text(
    kernel: &Weak<Kernel>,
    ino: u64,
    make: impl Fn(&Kernel) -> Made + Send + Sync + 'static,
) -> Arc<dyn Node> {
    let kernel = Weak::clone(kernel);
    TextNode::file(ino, move || make(&*kernel.upgrade().ok_or(Errno::ESRCH)?))
}

fn link(
    kernel: &Weak<Kernel>,
    ino: u64,
    make: impl Fn(&Kernel) -> Made + Send + Sync + 'static,
) -> Arc<dyn Node> {
    let kernel = Weak::clone(kernel);
    TextNode::link(ino, move || make(&*kernel.upgrade().ok_or(Errno::ESRCH)?))
}

/// The tree to mount at /proc.
#[must_use]
pub fn proc_tree(kernel: &Weak<Kernel>, pid: i32) -> Arc<dyn Node> {
    let own = own_tree(kernel);
    let fixed = |ino, text: &'static str| TextNode::file(ino, move || Ok(text.as_bytes().to_vec()));
    let kernel_tree = StaticDir::with(
        40,
        vec![
            ("pid_max", fixed(41, "32768\n")),
            ("osrelease", fixed(42, "6.1.0\n")),
            ("ostype", fixed(43, "Linux\n")),
            (
                "hostname",
                text(kernel, 44, |k| {
                    Ok(format!("{}\n", k.identity.hostname).into_bytes())
                }),
            ),
            (
                "random",
                StaticDir::with(45, vec![("uuid", TextNode::file(46, uuid))]),
            ),
        ],
    );
    let vm_tree = StaticDir::with(
        50,
        vec![
            ("overcommit_memory", fixed(51, "0\n")),
            ("max_map_count", fixed(52, "60000\n")),
            ("mmap_min_addr", fixed(53, "65536\n")),
        ],
    );
    let core = StaticDir::with(56, vec![("somaxconn", fixed(57, "4096\n"))]);
    let net_tree = StaticDir::with(55, vec![("core", core)]);
    let thread = Arc::clone(&own);
    StaticDir::with(
        2,
        vec![
            (
                "self",
                link(kernel, 19, |k| Ok(k.identity.pid.to_string().into_bytes())),
            ),
            (&pid.to_string(), own),
            ("thread-self", thread),
            ("meminfo", text(kernel, 10, meminfo)),
            ("cpuinfo", text(kernel, 11, cpuinfo)),
            ("stat", text(kernel, 12, machine_stat)),
            ("uptime", text(kernel, 13, uptime)),
            ("loadavg", fixed(14, "0.00 0.00 0.00 1/1 1\n")),
            (
                "version",
                fixed(15, "Linux version 6.1.0 (cloister micro-VM)\n"),
            ),
            ("filesystems", fixed(16, "nodev\ttmpfs\nnodev\tproc\n")),
            ("mounts", fixed(17, MOUNTS)),
            (
                "sys",
                StaticDir::with(
                    18,
                    vec![("kernel", kernel_tree), ("vm", vm_tree), ("net", net_tree)],
                ),
            ),
        ],
    )
}

const MOUNTS: &str = "image / image ro 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n";

/// The name of the process: that of its first thread.
fn command(kernel: &Kernel) -> String {
    // A restored process has a new id, its first thread the one it had.
    let name = kernel
        .threads()
        .first()
        .map(|thread| thread.name.lock().clone());
    String::from_utf8_lossy(&name.unwrap_or_default()).into_owned()
}

fn own_tree(kernel: &Weak<Kernel>) -> Arc<dyn Node> {
    let program = |k: &Kernel| k.program.get().cloned().ok_or(Errno::ENOENT);
    StaticDir::with(
        3,
        vec![
            ("exe", link(kernel, 20, move |k| Ok(program(k)?.0))),
            ("cwd", link(kernel, 21, |k| Ok(k.cwd.lock().clone()))),
            ("root", link(kernel, 22, |_| Ok(b"/".to_vec()))),
            ("maps", text(kernel, 23, maps)),
            (
                "cmdline",
                text(kernel, 24, move |k| {
                    Ok(program(k)?
                        .1
                        .iter()
                        .flat_map(|arg| [arg.as_slice(), b"\0"].concat())
                        .collect())
                }),
            ),
            (
                "comm",
                text(kernel, 25, |k| Ok(format!("{}\n", command(k)).into_bytes())),
            ),
            (
                "environ",
                text(kernel, 35, |k| {
                    let list = k.environment.get().cloned().unwrap_or_default();
                    Ok(list
                        .iter()
                        .flat_map(|e| [e.as_slice(), b"\0"].concat())
                        .collect())
                }),
            ),
            (
                "mounts",
                TextNode::file(36, || Ok(MOUNTS.as_bytes().to_vec())),
            ),
            ("status", text(kernel, 26, status)),
            ("stat", text(kernel, 27, process_stat)),
            (
                "statm",
                text(kernel, 28, |k| {
                    let pages = mapped_bytes(k) / 4096;
                    let resident = k.memory.used_bytes().0 / 4096;
                    Ok(format!("{pages} {resident} 0 0 0 {resident} 0\n").into_bytes())
                }),
            ),
            (
                "auxv",
                text(kernel, 29, |k| k.auxv.get().cloned().ok_or(Errno::ENOENT)),
            ),
            ("cgroup", text(kernel, 30, |_| Ok(b"0::/\n".to_vec()))),
            (
                "mountinfo",
                text(kernel, 31, |_| {
                    Ok(
                        b"1 0 0:1 / / ro - image image ro\n2 1 0:2 / /tmp rw - tmpfs tmpfs rw\n"
                            .to_vec(),
                    )
                }),
            ),
            (
                "limits",
                text(kernel, 32, |_| {
                    Ok(b"Limit                     Soft Limit           Hard Limit           Units\n\
                    Max stack size            8388608              8388608              bytes\n\
                    Max open files            4096                 4096                 files\n"
                    .to_vec())
                }),
            ),
            (
                "fd",
                StaticDir::dynamic(33, Arc::new(Descriptors(Weak::clone(kernel)))),
            ),
            (
                "task",
                StaticDir::dynamic(34, Arc::new(ThreadList(Weak::clone(kernel)))),
            ),
        ],
    )
}

struct Descriptors(Weak<Kernel>);

impl DynamicChildren for Descriptors {
    fn find(&self, name: &[u8]) -> Option<Arc<dyn Node>> {
        let fd: i32 = std::str::from_utf8(name).ok()?.parse().ok()?;
        let open = self.0.upgrade()?.files.lock().get(fd).ok()?;
        let ino = u64::try_from(fd).ok()?.saturating_add(1000);
        Some(Arc::new(DescriptorLink { open, ino }))
    }

    fn names(&self) -> Vec<Vec<u8>> {
        let Some(kernel) = self.0.upgrade() else {
            return Vec::new();
        };
        kernel
            .files
            .lock()
            .list()
            .iter()
            .map(|(fd, _)| fd.to_string().into_bytes())
            .collect()
    }
}

/// A link in /proc/self/fd.
struct DescriptorLink {
    open: Arc<OpenFile>,
    ino: u64,
}

impl Node for DescriptorLink {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0x15,
            ino: self.ino,
            nlink: 1,
            mode: S_IFLNK | 0o777,
            blksize: 1024,
            ..Stat::default()
        })
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        Ok(match self.open.folder_path() {
            Ok(path) => path,
            Err(_) => self.open.path.as_bytes().to_vec(),
        })
    }

    fn open(&self, _flags: u32) -> Result<Arc<dyn File>, Errno> {
        Err(Errno::ELOOP)
    }

    fn opened(&self) -> Option<Arc<OpenFile>> {
        // A folder is reached by its path, so that `..` leads where it should.
        self.open
            .folder_path()
            .is_err()
            .then(|| Arc::clone(&self.open))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

struct ThreadList(Weak<Kernel>);

impl DynamicChildren for ThreadList {
    fn find(&self, name: &[u8]) -> Option<Arc<dyn Node>> {
        let tid: i32 = std::str::from_utf8(name).ok()?.parse().ok()?;
        let thread = self.0.upgrade()?.thread(tid)?;
        let ino = u64::try_from(tid).ok()?.saturating_add(100_000);
        let comm = TextNode::file(ino, move || {
            Ok([thread.name.lock().as_slice(), b"\n"].concat())
        });
        Some(StaticDir::with(
            ino.saturating_add(1_000_000),
            vec![("comm", comm)],
        ))
    }

    fn names(&self) -> Vec<Vec<u8>> {
        let Some(kernel) = self.0.upgrade() else {
            return Vec::new();
        };
        kernel
            .threads()
            .iter()
            .map(|thread| thread.tid.to_string().into_bytes())
            .collect()
    }
}

fn uuid() -> Made {
    let mut b = [0u8; 16];
    super::random(&mut b)?;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let text = format!(
        "{}-{}-4{}-a{}-{}\n",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    );
    Ok(text.into_bytes())
}

fn mapped_bytes(kernel: &Kernel) -> u64 {
    kernel
        .memory
        .mappings()
        .iter()
        .fold(0, |sum, vma| vma.len().saturating_add(sum))
}

fn maps(kernel: &Kernel) -> Made {
    let mut text = String::new();
    for Vma {
        start,
        end,
        prot,
        kind,
        ..
    } in kernel.memory.mappings()
    {
        let flag = |bit, letter| if prot.contains(bit) { letter } else { '-' };
        let (r, w, x) = (
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x'),
        );
        let (sharing, offset, name) = match kind {
            Kind::Anonymous => ('p', 0, String::new()),
            Kind::SharedAnonymous => ('s', 0, "/dev/zero (deleted)".into()),
            Kind::File {
                name,
                offset,
                shared,
            } => (if shared { 's' } else { 'p' }, offset, name),
            Kind::Heap => ('p', 0, "[heap]".into()),
            Kind::Stack => ('p', 0, "[stack]".into()),
            Kind::Special(name) => ('p', 0, name),
        };
        let inode = u8::from(name.starts_with('/'));
        let head = format!("{start:08x}-{end:08x} {r}{w}{x}{sharing} {offset:08x} 00:1d {inode}");
        let gap = if name.is_empty() { "" } else { " " };
        let _ = writeln!(text, "{head:<72}{gap}{name}");
    }
    Ok(text.into_bytes())
}

fn meminfo(kernel: &Kernel) -> Made {
    let total = kernel.identity.memory_bytes / 1024;
    let used = kernel.memory.used_bytes().0 / 1024;
    let free = total.saturating_sub(used);
    let lines = format!(
        "MemTotal:       {total:8} kB\nMemFree:        {free:8} kB\nMemAvailable:   {free:8} kB\n\
         Buffers:        {0:8} kB\nCached:         {0:8} kB\nSwapTotal:      {0:8} kB\nSwapFree:       {0:8} kB\n",
        0
    );
    Ok(lines.into_bytes())
}

fn cpuinfo(kernel: &Kernel) -> Made {
    let mut text = String::new();
    for index in 0..kernel.identity.cpus {
        let _ = write!(
            text,
            "processor\t: {index}\nvendor_id\t: unknown\nmodel name\t: cloister vCPU\ncpu MHz\t\t: 2000.000\n\
             flags\t\t: fpu sse sse2\n\n"
        );
    }
    Ok(text.into_bytes())
}

fn machine_stat(kernel: &Kernel) -> Made {
    let mut text = String::from("cpu  0 0 0 0 0 0 0 0 0 0\n");
    for index in 0..kernel.identity.cpus {
        let _ = writeln!(text, "cpu{index} 0 0 0 0 0 0 0 0 0 0");
    }
    let boot = crate::clock::realtime_ns().saturating_sub(crate::clock::monotonic_ns());
    let boot = boot / 1_000_000_000;
    let _ = writeln!(text, "btime {boot}");
    Ok(text.into_bytes())
}

/// As CLOCK_MONOTONIC has it, which guests read by themselves.
fn uptime(_kernel: &Kernel) -> Made {
    let up = crate::clock::monotonic_ns() / 10_000_000;
    Ok(format!("{}.{:02} 0.00\n", up / 100, up % 100).into_bytes())
}

fn status(kernel: &Kernel) -> Made {
    let (pid, threads) = (kernel.identity.pid, kernel.threads().len());
    let (now, peak) = kernel.memory.used_bytes();
    let (size, now, peak) = (mapped_bytes(kernel) / 1024, now / 1024, peak / 1024);
    Ok(format!(
        "Name:\t{name}\nUmask:\t0022\nState:\tR (running)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t0\nTracerPid:\t0\n\
         Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nVmPeak:\t{size:8} kB\nVmSize:\t{size:8} kB\n\
         VmHWM:\t{peak:8} kB\nVmRSS:\t{now:8} kB\nThreads:\t{threads}\nCapEff:\t0000000000000000\n\
         Cpus_allowed_list:\t0-{}\n",
        kernel.identity.cpus.saturating_sub(1),
        name = command(kernel),
    )
    .into_bytes())
}

fn process_stat(kernel: &Kernel) -> Made {
    let (pid, threads) = (kernel.identity.pid, kernel.threads().len());
    let size = mapped_bytes(kernel);
    let resident = kernel.memory.used_bytes().0 / 4096;
    let name = command(kernel);
    let started = kernel.started_ns.load(Ordering::Relaxed) / 10_000_000;
    Ok(format!(
        "{pid} ({name}) R 0 {pid} {pid} 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 {started} {size} {resident} \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
    .into_bytes())
}

/// The tree to mount at /sys: the processors.
#[must_use]
pub fn sys_tree(cpus: u32) -> Arc<dyn Node> {
    let last = cpus.saturating_sub(1);
    let all = if last == 0 {
        "0\n".to_owned()
    } else {
        format!("0-{last}\n")
    };
    let list = |ino| {
        let all = all.clone().into_bytes();
        TextNode::file(ino, move || Ok(all.clone()))
    };
    let cpu = StaticDir::with(
        4,
        vec![
            ("online", list(5)),
            ("possible", list(6)),
            ("present", list(7)),
        ],
    );
    let system = StaticDir::with(3, vec![("cpu", cpu)]);
    let devices = StaticDir::with(2, vec![("system", system)]);
    StaticDir::with(1, vec![("devices", devices)])
}
