//! What may block, on threads of its own. The threads live as long as the process, because the kernel ends a sandbox when the thread that
//! forked it ends (PR_SET_PDEATHSIG, prctl(2)).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use cloister_container::{ExitReport, Instance, LimitChange, Limits, Sandbox, Spec, Stdio, spawn};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;

use crate::bundles::Bundle;
use crate::hypervisor::Machine;
use crate::images::Image;
use crate::learning::{LearnDone, LearnJob};
use crate::peer;
use crate::ready::{Next, RestoreOrder};
use crate::refusal::{Code, Refusal};
use crate::reset::{ResetDone, ResetJob};
use crate::snapshots::{Freezer, Frozen};

/// A spawn waits for the kernel to attach it to its cgroups more than it computes.
const SPAWN_THREADS: usize = 8;
/// Assigns never wait behind a spawn or an ending.
const ASSIGN_THREADS: usize = 2;
const END_THREADS: usize = 4;
/// A reset waits for its monitor; one whose guest holds it up must not hold up all others.
const RESET_THREADS: usize = 8;
const STACK_BYTES: usize = 512 << 10;

/// Times of parts of an operation, ms.
pub type Phases = BTreeMap<&'static str, f64>;

/// Everything a sandbox is made of.
pub struct SpawnJob {
    pub key: u64,
    pub instance: Arc<Instance>,
    pub id: String,
    pub label: String,
    pub image: Arc<Image>,
    pub argv: Vec<String>,
    /// For a micro-VM; `argv` is then its monitor's.
    pub machine: Option<Machine>,
    pub host_id: u32,
    pub limits: Limits,
    pub bundle: Option<Bundle>,
    pub stdio: Stdio,
    /// Who asked for it; nobody yet for one that is kept ready.
    pub reply_to: Option<ReplyTo>,
}

/// The same socket as a sandbox's descriptor 3, for the one reply.
pub struct ReplyTo {
    pub socket: OwnedFd,
    pub stream: u32,
    /// What is to be made ready once that is sent.
    pub next: Option<Next>,
}

impl ReplyTo {
    pub fn by(socket: &OwnedFd, stream: u32) -> io::Result<Self> {
        Ok(Self {
            socket: duplicate(socket.as_fd())?,
            stream,
            next: None,
        })
    }

    /// Has micro-VMs made ready after the reply, so that nobody waits for that.
    pub fn then(self, next: Option<Next>) -> Self {
        Self { next, ..self }
    }
}

/// A micro-VM that was kept ready and is to bring a snapshot back.
pub struct AdoptJob {
    pub key: u64,
    pub sandbox: Arc<Sandbox>,
    pub bundle: Option<Bundle>,
    pub order: RestoreOrder,
    pub reply_to: ReplyTo,
}

pub struct AssignJob {
    pub key: u64,
    pub sandbox: Arc<Sandbox>,
    pub bundle: Bundle,
    pub limits: Option<LimitChange>,
    pub asker: Asker,
}

/// Who is to hear a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub connection: u64,
    pub stream: u32,
}

/// One line of `list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub sandbox: String,
    pub kind: &'static str,
    pub image: String,
    pub label: String,
    pub pid: i32,
    pub state: &'static str,
    pub age_ms: u64,
    pub memory_bytes: Option<u64>,
    #[serde(skip)]
    pub memory_file: Option<PathBuf>,
}

pub enum Job {
    Spawn(Box<SpawnJob>),
    Assign(AssignJob),
    Adopt(Box<AdoptJob>),
    Learn(LearnJob),
    Freeze {
        key: u64,
        freezer: Freezer,
        asker: Asker,
    },
    Reset(ResetJob),
    Kill {
        key: u64,
        sandbox: Arc<Sandbox>,
    },
    Reap {
        key: u64,
        sandbox: Sandbox,
    },
    List {
        lines: Vec<Listed>,
        more: bool,
        asker: Asker,
    },
}

pub enum Done {
    Spawned {
        key: u64,
        outcome: Result<Sandbox, Refusal>,
        reply_to: Option<ReplyTo>,
    },
    Learned(LearnDone),
    Adopted {
        key: u64,
        outcome: Result<Phases, Refusal>,
        reply_to: ReplyTo,
    },
    Assigned {
        key: u64,
        outcome: Result<Phases, Refusal>,
        asker: Asker,
    },
    Frozen {
        key: u64,
        outcome: Result<Frozen, Refusal>,
        asker: Asker,
    },
    Reset(ResetDone),
    Killed {
        key: u64,
        outcome: io::Result<()>,
    },
    Reaped {
        key: u64,
        report: ExitReport,
    },
    Listed {
        lines: Vec<Listed>,
        more: bool,
        asker: Asker,
    },
}

/// The threads, and what they have done.
pub struct Jobs {
    spawns: Sender<Job>,
    assigns: Sender<Job>,
    ends: Sender<Job>,
    resets: Sender<Job>,
    done: Receiver<Done>,
    /// Readable when something is done.
    wake: Arc<OwnedFd>,
}

impl Jobs {
    pub fn start() -> io::Result<Self> {
        let (done, finished) = unbounded();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let pool = |name: &str, threads: usize| -> io::Result<Sender<Job>> {
            let (jobs, queue) = unbounded::<Job>();
            for _ in 0..threads {
                let (queue, done, wake) = (queue.clone(), done.clone(), Arc::clone(&wake));
                thread::Builder::new()
                    .name(name.to_owned())
                    .stack_size(STACK_BYTES)
                    .spawn(move || {
                        for job in queue {
                            // Fails only when the daemon is gone, and the thread with it.
                            let _ = done.send(run(job));
                            let _ = rustix::io::write(&*wake, &1u64.to_ne_bytes());
                        }
                    })?;
            }
            Ok(jobs)
        };
        Ok(Self {
            spawns: pool("spawn", SPAWN_THREADS)?,
            assigns: pool("assign", ASSIGN_THREADS)?,
            ends: pool("end", END_THREADS)?,
            resets: pool("reset", RESET_THREADS)?,
            done: finished,
            wake,
        })
    }

    pub fn start_job(&self, job: Job) {
        let pool = match job {
            Job::Spawn(_) => &self.spawns,
            Job::Assign(_) | Job::Adopt(_) => &self.assigns,
            // Seldom, and slow: an assign must not wait for it.
            Job::Freeze { .. } | Job::Learn(_) => &self.spawns,
            Job::Reset(_) => &self.resets,
            Job::Kill { .. } | Job::Reap { .. } | Job::List { .. } => &self.ends,
        };
        // The threads never end, so somebody always receives.
        let _ = pool.send(job);
    }

    pub fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// What has been done since the last call.
    pub fn take_done(&self) -> Vec<Done> {
        // Emptied first: what is done after that wakes again.
        let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
        self.done.try_iter().collect()
    }
}

fn run(job: Job) -> Done {
    match job {
        Job::Spawn(job) => run_spawn(*job),
        Job::Assign(job) => {
            let AssignJob {
                key,
                sandbox,
                bundle,
                limits,
                asker,
            } = job;
            let outcome = sandbox
                .assign(&bundle.path(), limits)
                .map(|phases| phases.into_iter().collect())
                .map_err(|error| refusal(error.code(), &error, error.remedy()));
            Done::Assigned {
                key,
                outcome,
                asker,
            }
        }
        Job::Adopt(job) => run_adopt(*job),
        Job::Learn(job) => Done::Learned(job.run()),
        Job::Freeze {
            key,
            freezer,
            asker,
        } => Done::Frozen {
            key,
            outcome: freezer.freeze(),
            asker,
        },
        Job::Reset(job) => Done::Reset(job.run()),
        Job::Kill { key, sandbox } => Done::Killed {
            key,
            outcome: sandbox.kill(),
        },
        Job::Reap { key, sandbox } => {
            peer::await_end(sandbox.pidfd());
            let report = sandbox.reap();
            Done::Reaped { key, report }
        }
        Job::List {
            mut lines,
            more,
            asker,
        } => {
            for line in &mut lines {
                let text = line.memory_file.as_ref().map(std::fs::read_to_string);
                line.memory_bytes = text.and_then(|text| text.ok()?.trim().parse().ok());
            }
            Done::Listed { lines, more, asker }
        }
    }
}

fn run_spawn(job: SpawnJob) -> Done {
    job.image.lay_out();
    let bundle = job.bundle.as_ref().map(Bundle::path);
    let spec = Spec {
        id: &job.id,
        label: &job.label,
        layers: &job.image.layers,
        argv: &job.argv,
        env: &job.image.env,
        host_id: job.host_id,
        limits: job.limits,
        bundle: bundle.as_deref(),
        monitor: job.machine.as_ref().map(Machine::monitor),
    };
    let outcome = spawn(&job.instance, &spec, job.stdio)
        .map_err(|error| refusal(error.code(), &error, error.remedy()));
    Done::Spawned {
        key: job.key,
        outcome,
        reply_to: job.reply_to,
    }
}

fn run_adopt(job: AdoptJob) -> Done {
    let served = job.sandbox.serve();
    let mounted = served.and_then(|()| match &job.bundle {
        Some(bundle) => job.sandbox.assign(&bundle.path(), None),
        None => Ok(Vec::new()),
    });
    let mounted = mounted.map_err(|error| refusal(error.code(), &error, error.remedy()));
    let outcome = mounted.and_then(|phases| {
        job.order.send()?;
        Ok(phases.into_iter().collect())
    });
    Done::Adopted {
        key: job.key,
        outcome,
        reply_to: job.reply_to,
    }
}

fn refusal(code: &str, error: &impl std::fmt::Display, remedy: impl Into<String>) -> Refusal {
    let code = match code {
        "limit_unavailable" => Code::LimitUnavailable,
        "isolation_unavailable" => Code::IsolationUnavailable,
        "bad_request" => Code::BadRequest,
        "unknown_bundle" => Code::UnknownBundle,
        "already_assigned" => Code::AlreadyAssigned,
        _ => Code::SetupFailed,
    };
    Refusal::new(code, format!("{error}."), remedy)
}

/// A second descriptor of the same open file.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}
