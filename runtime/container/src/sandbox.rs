use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};

use crate::bundle;
use crate::cgroup::cell::CellCgroup;
use crate::cgroup::hierarchy::StatFiles;
use crate::cgroup::leftovers::remove_when_empty;
use crate::error::SpawnError;
use crate::instance::Instance;
use crate::limits::{CpuWeight, LimitChange, Limits};
use crate::namespaces::{Namespaces, Taken};
use crate::order::{Ended, Order, Report, receive, send};

/// What a sandbox is made of.
#[derive(Debug)]
pub struct Spec<'a> {
    /// At most 64 characters of a-z, 0-9, _ and -; the host name inside.
    pub id: &'a str,
    /// Shown by ps; printable ASCII.
    pub label: &'a str,
    /// Folders of the image's layers, lowest first.
    pub layers: &'a [PathBuf],
    /// The runner's program, as it is found inside, and its arguments.
    pub argv: &'a [String],
    /// The runner's whole environment.
    pub env: &'a [(String, String)],
    /// Host uid and gid that the sandbox's only uid and gid stand for; nobody else's.
    pub host_id: u32,
    pub limits: Limits,
    /// Mounted read-only at /fn; without it /fn is empty until `Sandbox::assign`.
    pub bundle: Option<&'a Path>,
    /// Runs the runner in a micro-VM: `argv` is then the monitor's.
    pub monitor: Option<Monitor<'a>>,
}

/// What a micro-VM's monitor needs beside the image.
#[derive(Debug, Clone, Copy)]
pub struct Monitor<'a> {
    /// Its program, open for reading; it is executed by descriptor, as no path inside leads to it.
    pub program: BorrowedFd<'a>,
    /// /dev/kvm, open for reading and writing; the monitor finds it at descriptor 4.
    pub kvm: BorrowedFd<'a>,
    /// A file of one page that the monitor counts in (vmm/README.md); it finds it at descriptor 5.
    pub counters: BorrowedFd<'a>,
    /// The file of a snapshot, at descriptor 6.
    pub snapshot: Option<BorrowedFd<'a>>,
    /// The socket by which it is told what to do with one, at the descriptor behind that.
    pub control: Option<BorrowedFd<'a>>,
}

impl Monitor<'_> {
    fn snapshot_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.snapshot.into_iter().chain(self.control)
    }
}

/// What the runner finds open; nothing else of the caller's reaches it.
#[derive(Debug)]
pub struct Stdio {
    pub fd3: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A sandbox that runs.
#[derive(Debug)]
pub struct Sandbox {
    pid: Pid,
    pidfd: OwnedFd,
    /// Init's reports come from it; None of a micro-VM, whose monitor took init's place and ends for itself.
    socket: Option<OwnedFd>,
    /// Its mount namespace; None when it ended before it could be opened.
    mounts: Option<OwnedFd>,
    cgroup: Mutex<CellCgroup>,
    /// Of a micro-VM.
    namespaces: Option<Taken>,
    stat_files: StatFiles,
    phases: Vec<(&'static str, f64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The runner's own exit code.
    Exit(i32),
    /// The signal that ended the runner.
    Signal(i32),
    /// All of it was ended from outside.
    Killed,
    /// The kernel's OOM killer struck.
    Oom,
}

#[derive(Debug)]
pub struct ExitReport {
    pub reason: ExitReason,
    pub memory_peak_bytes: Option<u64>,
    /// Something of it could not be removed; its host id must not be used again.
    pub leftover: bool,
}

/// A report of init that does not come within this is a failure.
const REPORT_BOUND: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Names of the phases, so that a report cannot bring others.
const PHASES: [&str; 10] = [
    "cradle_ms",
    "limit_ms",
    "root_ms",
    "clone_ms",
    "ids_ms",
    "mount_ms",
    "network_ms",
    "lockdown_ms",
    "exec_ms",
    "total_ms",
];

/// Makes a sandbox; resolves when its runner has been executed behind all walls and limits. Blocks for some milliseconds; may be called by several
/// threads, which must live as long as their sandboxes. On failure nothing is left.
pub fn spawn(instance: &Instance, spec: &Spec<'_>, stdio: Stdio) -> Result<Sandbox, SpawnError> {
    let mut marks = Marks::begin();
    let shared = &instance.shared;
    let mut cradle = shared.take_cradle()?;
    marks.mark("cradle_ms");
    let mut namespaces = None;
    let outcome = cradle
        .cgroup
        .limit(&spec.limits, cradle.child.id())
        .map_err(SpawnError::from)
        .and_then(|()| {
            marks.mark("limit_ms");
            let root = shared
                .templates
                .root_of(spec.layers)
                .map_err(SpawnError::setup("root file system"))?;
            let tree = spec
                .bundle
                .map(bundle::tree_of)
                .transpose()
                .map_err(SpawnError::setup("bundle mount"))?;
            marks.mark("root_ms");
            let order = Order {
                id: spec.id.to_owned(),
                label: spec.label.to_owned(),
                argv: spec.argv.to_vec(),
                env: spec.env.to_vec(),
                host_id: spec.host_id,
                tmp_bytes: spec.limits.tmp_bytes,
                mount_point: shared
                    .templates
                    .mount_point()
                    .to_string_lossy()
                    .into_owned(),
                empty_file: shared.templates.empty_file().to_string_lossy().into_owned(),
                has_bundle: tree.is_some(),
                has_monitor: spec.monitor.is_some(),
                snapshot_fds: spec
                    .monitor
                    .as_ref()
                    .map_or(0, |monitor| monitor.snapshot_fds().count()),
            };
            let mut fds = vec![
                stdio.fd3.as_fd(),
                stdio.stdout.as_fd(),
                stdio.stderr.as_fd(),
                root.as_fd(),
            ];
            fds.extend(tree.as_ref().map(AsFd::as_fd));
            if spec.monitor.is_some() {
                let taken = Namespaces::take(&shared.namespaces);
                namespaces = Some(taken.map_err(SpawnError::setup("namespaces"))?);
            }
            if let (Some(monitor), Some(namespaces)) = (&spec.monitor, &namespaces) {
                fds.extend([monitor.program, monitor.kvm, monitor.counters]);
                fds.extend(namespaces.as_fds());
                fds.extend(monitor.snapshot_fds());
            }
            send(cradle.socket.as_fd(), &order, &fds).map_err(SpawnError::setup("order"))
        });
    drop(stdio);
    if let Err(error) = outcome {
        let _ = cradle.end();
        return Err(error);
    }
    let mut born: Option<(Pid, OwnedFd)> = None;
    let begun = wait_for_start(cradle.socket.as_fd(), &mut born, &mut marks);
    // It has done its part, or is ended with what it began.
    if begun.is_err() {
        let _ = cradle.child.kill();
    }
    let _ = cradle.child.wait();
    let ready = begun.and_then(|()| Ok(cradle.cgroup.stat_files()?));
    match (ready, born) {
        (Ok(stat_files), Some((pid, pidfd))) => {
            let path = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
            let mounts = std::fs::File::open(path).map(OwnedFd::from).ok();
            let cgroup = Mutex::new(cradle.cgroup);
            let socket = spec.monitor.is_none().then_some(cradle.socket);
            let phases = marks.end();
            Ok(Sandbox {
                pid,
                pidfd,
                socket,
                mounts,
                cgroup,
                namespaces,
                stat_files,
                phases,
            })
        }
        (outcome, born) => {
            if let Some((_, pidfd)) = born {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = wait(&pidfd);
            }
            cradle.cgroup.remove_with(remove_when_empty);
            Err(outcome
                .err()
                .unwrap_or_else(|| setup("start", "init told of no process")))
        }
    }
}

fn setup(step: &str, message: &str) -> SpawnError {
    SpawnError::Setup {
        step: step.to_owned(),
        message: message.to_owned(),
    }
}

/// Hears init out until the runner runs. Fills `born` as soon as there is a process to end.
fn wait_for_start(
    socket: BorrowedFd<'_>,
    born: &mut Option<(Pid, OwnedFd)>,
    marks: &mut Marks,
) -> Result<(), SpawnError> {
    let mut executing = None;
    loop {
        let mut wait = [PollFd::new(&socket, PollFlags::IN)];
        match poll(&mut wait, Some(&REPORT_BOUND)) {
            Ok(0) => return Err(setup("start", "it took longer than 10 s")),
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(SpawnError::call("start"))?,
        };
        let report = receive::<Report>(socket, false).map_err(SpawnError::setup("start"))?;
        match report.map(|(report, _)| report) {
            Some(Report::Cloned { pid, phases }) => {
                let pid =
                    Pid::from_raw(pid).ok_or_else(|| setup("start", "init told of no process"))?;
                // The process is our child (CLONE_PARENT) and has not been waited for, so its number is still its own.
                let pidfd =
                    pidfd_open(pid, PidfdFlags::empty()).map_err(SpawnError::call("start"))?;
                *born = Some((pid, pidfd));
                marks.add(&phases);
            }
            Some(Report::Started { phases }) => {
                marks.add(&phases);
                return Ok(());
            }
            Some(Report::Executing { phases }) => {
                marks.add(&phases);
                executing = Some(Instant::now());
            }
            Some(Report::Failed {
                step,
                message,
                isolation: true,
            }) => {
                return Err(SpawnError::Isolation { step, message });
            }
            Some(Report::Failed {
                step,
                message,
                isolation: false,
            }) => {
                return Err(SpawnError::Setup { step, message });
            }
            None => {
                // The exec closed init's end. Who ended init just before it did so too; that, the pidfd tells.
                let began = executing.ok_or_else(|| setup("start", "init ended early"))?;
                marks.add(&[("exec_ms".to_owned(), ms_since(began))]);
                return Ok(());
            }
            Some(Report::Ended(_)) => return Err(setup("start", "init ended early")),
        }
    }
}

/// Waits for a child by its pidfd; how it ended, if it had not been waited for before.
fn wait(pidfd: &OwnedFd) -> Option<WaitIdStatus> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.ok().flatten(),
        }
    }
}

/// How a monitor, pid 1 of its sandbox, ended by itself. The kernel lets no SIGKILL from within reach a pid 1 (pid_namespaces(7)), so that one came
/// from outside.
fn ended_by_itself(status: &WaitIdStatus) -> Option<Ended> {
    const KILL: i32 = Signal::KILL.as_raw();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ended::Exit(code)),
        (None, Some(KILL) | None) => None,
        (None, Some(signal)) => Some(Ended::Signal(signal)),
    }
}

impl Sandbox {
    /// Host pid of its init.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Readable when init, and with it every process of the sandbox, has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How long each part of making it took, ms.
    pub fn phases(&self) -> &[(&'static str, f64)] {
        &self.phases
    }

    /// Kernel files the worker reads on its own.
    pub fn stat_files(&self) -> StatFiles {
        self.stat_files.clone()
    }

    /// One that was made to wait is waited for from now on.
    pub fn serve(&self) -> Result<(), SpawnError> {
        self.change(&LimitChange {
            cpu_weight: Some(CpuWeight::Serving),
            ..LimitChange::default()
        })
    }

    fn change(&self, change: &LimitChange) -> Result<(), SpawnError> {
        let cgroup = self.cgroup.lock();
        Ok(cgroup
            .unwrap_or_else(PoisonError::into_inner)
            .change(change)?)
    }

    /// Mounts a bundle read-only at /fn of a cell that was made without one, and changes limits. Once per sandbox.
    pub fn assign(
        &self,
        bundle: &Path,
        change: Option<LimitChange>,
    ) -> Result<Vec<(&'static str, f64)>, SpawnError> {
        let began = Instant::now();
        if let Some(change) = change {
            self.change(&change)?;
        }
        let limit_ms = ms_since(began);
        let tree = bundle::tree_of(bundle).map_err(SpawnError::setup("bundle mount"))?;
        let mounts = self
            .mounts
            .as_ref()
            .ok_or_else(|| setup("bundle mount", "the sandbox has ended"))?;
        bundle::mount_in(mounts.as_fd(), &tree).map_err(SpawnError::setup("bundle mount"))?;
        Ok(vec![
            ("limit_ms", limit_ms),
            ("mount_ms", ms_since(began) - limit_ms),
        ])
    }

    /// Ends every process in it; `pidfd` tells when that is done.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// After `pidfd` is readable: why it ended. Removes its cgroups.
    pub fn reap(self) -> ExitReport {
        let status = wait(&self.pidfd);
        let told = match &self.socket {
            // What init said last is why the runner ended. A function cannot end init: without a word of it, somebody else did.
            Some(socket) => match receive::<Report>(socket.as_fd(), false) {
                Ok(Some((Report::Ended(ended), _))) => Some(ended),
                _ => None,
            },
            None => status.as_ref().and_then(ended_by_itself),
        };
        let cgroup = self
            .cgroup
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let reason = match told {
            // A process of the function may be killed and the runner go on to end by itself: then its own word counts.
            Some(Ended::Exit(code)) => ExitReason::Exit(code),
            _ if cgroup.saw_oom_kill() => ExitReason::Oom,
            Some(Ended::Signal(signal)) => ExitReason::Signal(signal),
            None => ExitReason::Killed,
        };
        let memory_peak_bytes = cgroup.memory_peak_bytes();
        let leftover = !cgroup.remove_with(remove_when_empty);
        if let Some(namespaces) = self.namespaces.filter(|_| !leftover) {
            namespaces.give_back();
        }
        ExitReport {
            reason,
            memory_peak_bytes,
            leftover,
        }
    }
}

struct Marks {
    began: Instant,
    last: Instant,
    phases: Vec<(&'static str, f64)>,
}

impl Marks {
    fn begin() -> Marks {
        let began = Instant::now();
        Marks {
            began,
            last: began,
            phases: Vec::with_capacity(PHASES.len()),
        }
    }

    fn mark(&mut self, name: &'static str) {
        self.phases.push((name, ms_since(self.last)));
        self.last = Instant::now();
    }

    fn add(&mut self, told: &[(String, f64)]) {
        for (name, ms) in told {
            if let Some(known) = PHASES.iter().find(|known| *known == name) {
                self.phases.push((known, *ms));
            }
        }
    }

    fn end(mut self) -> Vec<(&'static str, f64)> {
        self.phases.push(("total_ms", ms_since(self.began)));
        self.phases
    }
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
