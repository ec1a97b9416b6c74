//! From a `create` to the moment its connection is the sandbox's.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use cloister_container::{Limits, Sandbox, Stdio};
use cloister_protocol::{FrameType, encode_json};
use rustix::fs::OFlags;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bundles::Bundle;
use crate::connection::Connection;
use crate::counters::CounterFile;
use crate::daemon::Daemon;
use crate::hypervisor::{Hypervisor, Machine, monitor_argv};
use crate::images::Image;
use crate::jobs::{Job, SpawnJob, duplicate};
use crate::output::OutputPipe;
use crate::peer::{self, PeerProcess};
use crate::refusal::{Code, Refusal};
use crate::request::{Create, Kind};
use crate::reset::Resetter;
use crate::sandboxes::Entry;
use crate::snapshots::{Freezer, Shape, Snapshot};
use crate::waiting::Waiting;
use crate::watch::Source;

const MIB: u64 = 1 << 20;
/// The layout that vmm/README.md describes.
const COUNTERS_FORMAT: &str = "vm1";

/// What a create needs besides its request.
struct Ground {
    /// For a micro-VM.
    hypervisor: Option<Arc<Hypervisor>>,
    snapshot: Option<Arc<Snapshot>>,
    image: Arc<Image>,
    bundle: Option<Bundle>,
    peer: PeerProcess,
}

impl Daemon {
    /// Starts making a sandbox whose descriptor 3 is the connection.
    pub(crate) fn create(&mut self, connection: Connection, stream: u32, create: Create) {
        let socket = match connection.into_socket() {
            Ok(socket) => socket,
            Err(error) => return self.warn(&format!("a socket cannot be handed over: {error}")),
        };
        let ground = match self.ground(&socket, &create) {
            Ok(ground) => ground,
            Err(refusal) => return say(&socket, stream, &refusal),
        };
        let Some(host_id) = self.slots.take() else {
            return say(&socket, stream, &too_many());
        };
        if let Err(error) = self.start_spawn(&socket, stream, create, ground, host_id) {
            self.slots.give(host_id);
            let message = format!("A sandbox cannot be made: {error}.");
            let remedy = "Raise sandboxd's limit of open files (ulimit -n).";
            say(
                &socket,
                stream,
                &Refusal::new(Code::SetupFailed, message, remedy),
            );
        }
    }

    fn ground(&mut self, socket: &OwnedFd, create: &Create) -> Result<Ground, Refusal> {
        if self.draining {
            return Err(Refusal::new(
                Code::Draining,
                "sandboxd is draining and makes no more sandboxes.",
                "Ask again when it has been started anew.",
            ));
        }
        let hypervisor = match create.kind {
            Kind::Container => None,
            Kind::Microvm => Some(self.hypervisor.clone().ok_or_else(|| {
                Refusal::new(
                    Code::IsolationUnavailable,
                    "This machine runs no micro-VMs.",
                    "Run ./cloister doctor, which says what is missing, or use kind container.",
                )
            })?),
            Kind::Process => {
                return Err(Refusal::new(
                    Code::IsolationUnavailable,
                    "sandboxd makes no sandboxes without walls.",
                    "Use kind container or microvm.",
                ));
            }
        };
        if self.sandboxes.len() >= self.options.max_sandboxes as usize {
            return Err(too_many());
        }
        let image = self.images.get(&create.image)?;
        let snapshot = match create.snapshot.as_ref().or(create.awaits.as_ref()) {
            Some(id) => {
                let shape = Shape::of(&image, create);
                Some(self.snapshots.get(id, &shape, create.bundle.as_deref())?)
            }
            None => None,
        };
        Ok(Ground {
            hypervisor,
            snapshot,
            image,
            bundle: match &create.bundle {
                Some(digest) => Some(self.bundles.get(digest)?),
                None => None,
            },
            peer: peer::process(socket).ok_or_else(|| {
                Refusal::new(
                    Code::SetupFailed,
                    "The process that connected cannot be watched, so its sandbox could outlive it.",
                    "Run the worker in sandboxd's PID namespace, or on Linux 6.5 or later.",
                )
            })?,
        })
    }

    fn start_spawn(
        &mut self,
        socket: &OwnedFd,
        stream: u32,
        create: Create,
        ground: Ground,
        host_id: u32,
    ) -> io::Result<()> {
        let now = Instant::now();
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let fd3 = duplicate(socket.as_fd())?;
        let reply_to = duplicate(socket.as_fd())?;
        let id = new_id()?;
        let key = self.new_key();
        let (mut machine, mut counted, mut freezer, mut waiting) = (None, None, None, None);
        let mut resetter = None;
        if let Some(hypervisor) = &ground.hypervisor {
            let counters = Arc::new(self.counters.file(&id)?);
            counted = Some(Arc::clone(&counters));
            let given = match create.freezable {
                true => {
                    let shape = Shape::of(&ground.image, &create);
                    Some(Freezer::new(shape, create.bundle.clone())?)
                }
                false => None,
            };
            let (kept, by) = given.unzip();
            freezer = kept;
            let waits = match create.awaits {
                Some(_) => Some(Waiting::new(Shape::of(&ground.image, &create))?),
                None => None,
            };
            let (kept, mut ordered_by) = waits.unzip();
            waiting = kept;
            match &waiting {
                Some(waiting) => resetter = Some(waiting.resetter()?),
                None if create.snapshot.is_some() => {
                    let (kept, theirs) = Resetter::new()?;
                    (resetter, ordered_by) = (Some(kept), Some(theirs));
                }
                None => {}
            }
            let made = Machine::new(Arc::clone(hypervisor), counters);
            let made = made.of_snapshot(ground.snapshot).freezable(by);
            machine = Some(made.hearing(ordered_by));
        }
        let joined = self.clients.join(ground.peer, key);
        let client = joined.client;
        let watched = match joined.watch {
            Some(pidfd) => self.watch.add(pidfd, Source::Client(client)),
            None => Ok(()),
        };
        if let Err(error) = watched {
            self.clients.leave(client, key);
            return Err(error);
        }
        let argv = match &ground.hypervisor {
            Some(_) => monitor_argv(&ground.image, &create, guest_pid(key)),
            None => ground.image.argv(create.memory_mb, &create.argv_extra),
        };
        self.sandboxes.insert(
            key,
            Entry {
                id: id.clone(),
                kind: create.kind,
                image: create.image,
                label: create.label.clone(),
                host_id,
                began: now,
                client,
                sandbox: None,
                pid: 0,
                jobs: 0,
                assigned: create.bundle.is_some(),
                killed: false,
                exited: false,
                killers: Vec::new(),
                pipes: vec![
                    OutputPipe::new(stdout, 1, now),
                    OutputPipe::new(stderr, 2, now),
                ],
                account: self.held.account(),
                guest_pid: (create.snapshot.is_some() || create.awaits.is_some())
                    .then(|| guest_pid(key)),
                counters: counted,
                freezer,
                waiting,
                resetter,
            },
        );
        self.jobs.start_job(Job::Spawn(Box::new(SpawnJob {
            key,
            instance: Arc::clone(&self.instance),
            id,
            argv,
            machine,
            image: ground.image,
            label: create.label,
            host_id,
            limits: Limits {
                memory_bytes: u64::from(create.memory_mb).saturating_mul(MIB),
                cpu_milli: create.cpu_milli,
                pids: create.pids,
                tmp_bytes: u64::from(create.tmp_mb).saturating_mul(MIB),
                cpuset: None,
                io: None,
            },
            bundle: ground.bundle,
            stdio: Stdio {
                fd3,
                stdout: stdout_end,
                stderr: stderr_end,
            },
            socket: reply_to,
            stream,
        })));
        Ok(())
    }

    /// A spawn is done. The one REPLY is sent, and sandboxd's last copy of the socket closes.
    pub(crate) fn spawned(
        &mut self,
        key: u64,
        outcome: Result<Sandbox, Refusal>,
        socket: OwnedFd,
        stream: u32,
    ) {
        let sandbox = match outcome {
            Ok(sandbox) => Arc::new(sandbox),
            Err(refusal) => {
                say(&socket, stream, &refusal);
                self.not_made(key, &refusal);
                return;
            }
        };
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        entry.pid = sandbox.pid();
        let reply = Created {
            ok: true,
            sandbox: &entry.id,
            pid: entry.pid,
            guest_pid: entry.guest_pid,
            stat: stat(&sandbox, entry.counters.as_deref()),
            phases: sandbox.phases().iter().copied().collect(),
        };
        tracing::debug!(sandbox = %entry.id, label = %entry.label, pid = entry.pid, "made");
        let mut sound = if entry.killed {
            say(&socket, stream, &ended());
            false
        } else {
            sent(&socket, stream, &reply)
        };
        let watched = self.watch.add(sandbox.pidfd(), Source::Sandbox(key));
        for pipe in &entry.pipes {
            let source = Source::Output(key, pipe.number);
            sound &= self.watch.add(&pipe.fd, source).is_ok();
        }
        entry.sandbox = Some(sandbox);
        if !sound || watched.is_err() {
            self.kill_now(key);
        }
        if watched.is_err() {
            // Nobody will tell of its end, so the reaping waits for it.
            self.exited(key);
        }
    }
}

/// Clones of one snapshot have different ones; below PID_MAX, and never that of an init.
fn guest_pid(key: u64) -> u32 {
    const FIRST: u64 = 300;
    const COUNT: u64 = 32_000;
    u32::try_from(key % COUNT)
        .unwrap_or(0)
        .saturating_add(FIRST as u32)
}

fn ended() -> Refusal {
    Refusal::new(
        Code::Draining,
        "The sandbox was ended while it was made.",
        "Ask again, unless sandboxd is draining.",
    )
}

fn too_many() -> Refusal {
    Refusal::new(
        Code::TooManySandboxes,
        "There are as many sandboxes as this sandboxd makes.",
        "End some, or raise --max-sandboxes.",
    )
}

#[derive(Serialize)]
struct Created<'a> {
    ok: bool,
    sandbox: &'a str,
    pid: i32,
    #[serde(rename = "guestPid", skip_serializing_if = "Option::is_none")]
    guest_pid: Option<u32>,
    stat: Value,
    phases: BTreeMap<&'static str, f64>,
}

/// The kernel's files on a sandbox, for the worker to read.
fn stat(sandbox: &Sandbox, counters: Option<&CounterFile>) -> Value {
    let files = sandbox.stat_files();
    let file =
        |file: &cloister_container::StatFile| json!({"path": file.path, "format": file.format});
    let mut stat = json!({"cpu": file(&files.cpu), "memoryPeak": file(&files.memory_peak), "memory": file(&files.memory)});
    if let (Some(counters), Some(stat)) = (counters, stat.as_object_mut()) {
        let place = json!({"path": counters.path(), "format": COUNTERS_FORMAT});
        stat.insert("counters".to_owned(), place);
    }
    stat
}

/// A pipe whose read end does not block and whose write end does.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&reading, OFlags::NONBLOCK)?;
    Ok((reading, writing))
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("sb_{:016x}", u64::from_be_bytes(bytes)))
}

/// Sends the one REPLY; what cannot be sent at once goes to nobody, since the client is gone or sent what it must not.
fn sent(socket: &OwnedFd, stream: u32, reply: &impl Serialize) -> bool {
    let Ok(bytes) = encode_json(FrameType::Reply, stream, reply) else {
        return false;
    };
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    send(socket, &bytes, flags).is_ok_and(|count| count == bytes.len())
}

fn say(socket: &OwnedFd, stream: u32, refusal: &Refusal) {
    sent(socket, stream, refusal);
}
