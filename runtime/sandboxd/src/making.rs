//! From what a sandbox is to be made of to the moment it runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use cloister_container::{CpuWeight, Limits, Sandbox, Stdio};
use cloister_protocol::{FrameType, encode_json};
use rustix::fs::OFlags;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bundles::Bundle;
use crate::counters::{CounterFile, Counters};
use crate::daemon::Daemon;
use crate::hypervisor::{Machine, Task, monitor_argv};
use crate::images::Image;
use crate::jobs::{Job, Phases, ReplyTo, SpawnJob};
use crate::output::OutputPipe;
use crate::ready::Waiting;
use crate::refusal::{Code, Refusal};
use crate::request::Create;
use crate::reset::Resetter;
use crate::sandboxes::Entry;
use crate::snapshots::{Freezer, Snapshot};
use crate::watch::Source;

const MIB: u64 = 1 << 20;
/// The layout that vmm/README.md describes.
const COUNTERS_FORMAT: &str = "vm1";

/// A sandbox that is to be made.
pub struct Making {
    pub key: u64,
    id: String,
    create: Create,
    image: Arc<Image>,
    pub label: String,
    /// 0: nobody's yet.
    pub client: u64,
    pub bundle: Option<Bundle>,
    argv: Vec<String>,
    machine: Option<Machine>,
    counters: Option<Arc<CounterFile>>,
    guest_pid: Option<u32>,
    pub freezer: Option<Freezer>,
    pub waiting: Option<Waiting>,
    pub resetter: Option<Resetter>,
    pub snapshot: Option<Arc<Snapshot>>,
    stdio: Stdio,
    outputs: [OwnedFd; 2],
    pub reply_to: Option<ReplyTo>,
}

impl Making {
    /// The file that its monitor counts in.
    pub fn count(&mut self, counters: &Counters) -> io::Result<Arc<CounterFile>> {
        let file = Arc::new(counters.file(&self.id)?);
        self.counters = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Runs the image's runner in a micro-VM.
    pub fn in_machine(&mut self, machine: Machine, task: Task) {
        let pid = guest_pid(self.key);
        self.argv = monitor_argv(&self.image, &self.create, task, pid, machine.facts());
        self.machine = Some(machine);
        self.guest_pid = match task {
            Task::Boot { .. } => None,
            Task::Wait { .. } => Some(pid),
        };
    }
}

impl Daemon {
    /// What a request asks for, in a container so far.
    pub(crate) fn making(
        &mut self,
        create: &Create,
        image: &Arc<Image>,
        fd3: OwnedFd,
    ) -> io::Result<Making> {
        let (out, stdout) = output_pipe()?;
        let (err, stderr) = output_pipe()?;
        Ok(Making {
            key: self.new_key(),
            id: new_id()?,
            create: create.clone(),
            image: Arc::clone(image),
            label: String::new(),
            client: 0,
            bundle: None,
            argv: image.argv(create.memory_mb, &create.argv_extra),
            machine: None,
            counters: None,
            guest_pid: None,
            freezer: None,
            waiting: None,
            resetter: None,
            snapshot: None,
            stdio: Stdio {
                fd3,
                stdout,
                stderr,
            },
            outputs: [out, err],
            reply_to: None,
        })
    }

    /// Starts to make it.
    pub(crate) fn make(&mut self, making: Making) -> io::Result<()> {
        let Some(host_id) = self.slots.take() else {
            self.leave(making.client, making.key);
            return Err(io::Error::other("there are as many as there are host ids"));
        };
        let now = Instant::now();
        let [out, err] = making.outputs;
        let create = making.create;
        let cpu_weight = if making.waiting.is_some() {
            CpuWeight::Waiting
        } else {
            CpuWeight::Serving
        };
        self.sandboxes.insert(
            making.key,
            Entry {
                id: making.id.clone(),
                kind: create.kind,
                image: create.image,
                label: making.label.clone(),
                host_id,
                began: now,
                client: making.client,
                sandbox: None,
                pid: 0,
                jobs: 0,
                assigned: making.bundle.is_some(),
                killed: false,
                exited: false,
                killers: Vec::new(),
                pipes: vec![OutputPipe::new(out, 1, now), OutputPipe::new(err, 2, now)],
                account: self.held.account(),
                guest_pid: making.guest_pid,
                counters: making.counters,
                freezer: making.freezer,
                waiting: making.waiting,
                resetter: making.resetter,
                snapshot: making.snapshot,
                learning: false,
                reset_next: None,
            },
        );
        self.jobs.start_job(Job::Spawn(Box::new(SpawnJob {
            key: making.key,
            instance: Arc::clone(&self.instance),
            id: making.id,
            argv: making.argv,
            machine: making.machine,
            image: making.image,
            label: making.label,
            host_id,
            limits: Limits {
                memory_bytes: u64::from(create.memory_mb).saturating_mul(MIB),
                cpu_milli: create.cpu_milli,
                pids: create.pids,
                tmp_bytes: u64::from(create.tmp_mb).saturating_mul(MIB),
                cpuset: None,
                io: None,
                cpu_weight,
            },
            bundle: making.bundle,
            stdio: making.stdio,
            reply_to: making.reply_to,
        })));
        Ok(())
    }

    fn leave(&mut self, client: u64, key: u64) {
        if let Some(pidfd) = self.clients.leave(client, key) {
            self.watch.remove(&pidfd);
        }
    }

    /// A spawn is done. The one REPLY is sent, and sandboxd's last copy of the socket closes.
    pub(crate) fn spawned(
        &mut self,
        key: u64,
        outcome: Result<Sandbox, Refusal>,
        reply_to: Option<ReplyTo>,
    ) {
        let sandbox = match outcome {
            Ok(sandbox) => Arc::new(sandbox),
            Err(refusal) => {
                if let Some(reply_to) = &reply_to {
                    say(&reply_to.socket, reply_to.stream, &refusal);
                }
                self.not_made(key, &refusal);
                return;
            }
        };
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        entry.pid = sandbox.pid();
        let phases = sandbox.phases().iter().copied().collect();
        let watched = self.watch.add(sandbox.pidfd(), Source::Sandbox(key));
        let mut sound = true;
        for pipe in &entry.pipes {
            let source = Source::Output(key, pipe.number);
            sound &= self.watch.add(&pipe.fd, source).is_ok();
        }
        tracing::debug!(sandbox = %entry.id, label = %entry.label, pid = entry.pid, "made");
        entry.sandbox = Some(sandbox);
        match reply_to {
            Some(reply_to) => sound &= self.tell_made(key, phases, &reply_to),
            None => self.made_ready(key),
        }
        if !sound || watched.is_err() {
            self.kill_now(key);
        }
        if watched.is_err() {
            // Nobody will tell of its end, so the reaping waits for it.
            self.exited(key);
        }
    }

    /// One that was ready has been told what to bring back.
    pub(crate) fn adopted(
        &mut self,
        key: u64,
        outcome: Result<Phases, Refusal>,
        reply_to: &ReplyTo,
    ) {
        let sound = match outcome {
            Ok(phases) => self.tell_made(key, phases, reply_to),
            Err(refusal) => {
                say(&reply_to.socket, reply_to.stream, &refusal);
                false
            }
        };
        if !sound {
            self.kill_now(key);
        }
        self.job_done(key);
    }

    /// Sends the REPLY of a create; false when there is nobody or nothing left to tell of.
    fn tell_made(&mut self, key: u64, phases: Phases, reply_to: &ReplyTo) -> bool {
        let entry = self.sandboxes.get_mut(key);
        let made = entry.and_then(|entry| Some((entry.sandbox.clone()?, entry)));
        let Some((sandbox, entry)) = made.filter(|(_, entry)| !entry.killed) else {
            say(&reply_to.socket, reply_to.stream, &ended());
            return false;
        };
        let reply = Created {
            ok: true,
            sandbox: &entry.id,
            pid: entry.pid,
            guest_pid: entry.guest_pid,
            stat: stat(&sandbox, entry.counters.as_deref()),
            phases,
        };
        sent(&reply_to.socket, reply_to.stream, &reply)
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

pub fn too_many() -> Refusal {
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

pub fn say(socket: &OwnedFd, stream: u32, refusal: &Refusal) {
    sent(socket, stream, refusal);
}
