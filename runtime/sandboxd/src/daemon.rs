//! The event loop: one thread owns all state and never blocks; what may block is a job (jobs.rs).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloister_container::Instance;
use cloister_protocol::{Frame, FrameType, Progress, encode_json};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use serde::Serialize;

use crate::bundles::Bundles;
use crate::clients::Clients;
use crate::connection::{Connection, Outgoing, Role};
use crate::counters::Counters;
use crate::hypervisor::Hypervisor;
use crate::images::Images;
use crate::jobs::{Asker, Done, Jobs};
use crate::logging::LineBudget;
use crate::options::Options;
use crate::output::Held;
use crate::peer;
use crate::ready::Ready;
use crate::refusal::Refusal;
use crate::request::{self, Request};
use crate::sandboxes::Sandboxes;
use crate::slots::Slots;
use crate::snapshots::Snapshots;
use crate::watch::{Source, Watch};

const MAX_CONNECTIONS: usize = 1024;
/// Accepted in one go, before others have their turn.
const MAX_ACCEPTS: usize = 64;
/// Frames of one connection handled in one go.
const MAX_FRAMES: usize = 64;
/// The first frame, and the rest of one that has begun, must come within this.
const FRAME_BOUND: Duration = Duration::from_secs(5);

pub struct Daemon {
    pub(crate) options: Options,
    pub(crate) hypervisor: Option<Arc<Hypervisor>>,
    pub(crate) counters: Counters,
    pub(crate) cgroup: &'static str,
    pub(crate) instance: Arc<Instance>,
    pub(crate) images: Images,
    pub(crate) bundles: Bundles,
    pub(crate) watch: Watch,
    pub(crate) jobs: Jobs,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) clients: Clients,
    pub(crate) slots: Slots,
    pub(crate) snapshots: Snapshots,
    pub(crate) ready: Ready,
    pub(crate) held: Held,
    /// Output pipes that rest, until when; in that order.
    pub(crate) resting: VecDeque<(Instant, u64, u8)>,
    pub(crate) draining: bool,
    pub(crate) drainers: Vec<Asker>,
    pub(crate) lines: LineBudget,
    listener: OwnedFd,
    accepting: bool,
    /// A descriptor was closed since the last turn.
    pub(crate) freed: bool,
    group: Option<u32>,
    signals: UnixStream,
    ending: bool,
    connections: HashMap<u64, Connection>,
    /// When a connection must have sent a whole frame.
    bounds: BTreeSet<(Instant, u64)>,
    next_key: u64,
}

/// What the daemon is made of, opened by main.
pub struct Parts {
    pub options: Options,
    /// None where this machine runs no micro-VMs.
    pub hypervisor: Option<Arc<Hypervisor>>,
    pub counters: Counters,
    pub cgroup: &'static str,
    pub instance: Instance,
    pub images: Images,
    pub bundles: Bundles,
    pub listener: OwnedFd,
    pub group: Option<u32>,
    /// Readable when the process is told to end.
    pub signals: UnixStream,
}

impl Daemon {
    pub fn new(parts: Parts) -> io::Result<Self> {
        let daemon = Self {
            slots: Slots::new(parts.options.uid_base, crate::options::UID_SLOTS),
            options: parts.options,
            hypervisor: parts.hypervisor,
            counters: parts.counters,
            cgroup: parts.cgroup,
            instance: Arc::new(parts.instance),
            images: parts.images,
            bundles: parts.bundles,
            watch: Watch::new()?,
            jobs: Jobs::start()?,
            sandboxes: Sandboxes::default(),
            clients: Clients::default(),
            snapshots: Snapshots::default(),
            ready: Ready::default(),
            held: Held::default(),
            resting: VecDeque::new(),
            draining: false,
            drainers: Vec::new(),
            lines: LineBudget::new(Instant::now()),
            listener: parts.listener,
            accepting: true,
            freed: false,
            group: parts.group,
            signals: parts.signals,
            ending: false,
            connections: HashMap::new(),
            bounds: BTreeSet::new(),
            next_key: 0,
        };
        daemon.watch.add(&daemon.listener, Source::Listener)?;
        daemon.watch.add(&daemon.signals, Source::Signal)?;
        daemon.watch.add(daemon.jobs.wake(), Source::Done)?;
        Ok(daemon)
    }

    /// Serves until it is told to end and the last sandbox is gone. Gives the instance back for removal.
    pub fn run(mut self) -> io::Result<Arc<Instance>> {
        while !(self.ending && self.sandboxes.is_empty()) {
            let bound = self.bounds.first().map(|(since, _)| *since);
            let rested = self.resting.front().map(|(until, ..)| *until);
            let until = bound.into_iter().chain(rested).min();
            for source in self.watch.wait(Instant::now(), until)? {
                self.handle(source);
            }
            self.end_overdue();
            self.resume_output(Instant::now());
            self.accept_again();
        }
        Ok(self.instance)
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Signal => {
                tracing::info!(sandboxes = self.sandboxes.len(), "told to end");
                self.watch.remove(&self.signals);
                self.ending = true;
                self.drain();
            }
            Source::Done => {
                for done in self.jobs.take_done() {
                    self.done(done);
                }
            }
            Source::Connection(key) => self.serve(key),
            Source::Sandbox(key) => self.exited(key),
            Source::Client(key) => self.client_ended(key),
            Source::Output(key, number) => self.read_output(key, number),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Spawned {
                key,
                outcome,
                mut reply_to,
            } => {
                let next = reply_to.as_mut().and_then(|reply_to| reply_to.next.take());
                self.spawned(key, outcome, reply_to);
                self.want_ready(next);
            }
            Done::Learned(done) => self.learned(done),
            Done::Adopted {
                key,
                outcome,
                mut reply_to,
            } => {
                let next = reply_to.next.take();
                self.adopted(key, outcome, &reply_to);
                self.want_ready(next);
            }
            Done::Assigned {
                key,
                outcome,
                asker,
            } => self.assign_done(key, outcome, asker),
            Done::Frozen {
                key,
                outcome,
                asker,
            } => self.frozen(key, outcome, asker),
            Done::Reset(done) => self.reset_done(done),
            Done::Killed { key, outcome } => self.kill_done(key, outcome),
            Done::Reaped { key, report } => self.reaped(key, &report),
            Done::Listed { lines, more, asker } => self.list_done(&lines, more, asker),
        }
    }

    /// A key for a connection or a sandbox.
    pub(crate) fn new_key(&mut self) -> u64 {
        self.next_key = self.next_key.saturating_add(1);
        self.next_key
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTS {
            if self.connections.len() >= MAX_CONNECTIONS {
                self.stop_accepting();
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => self.greet(socket),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.warn("there are too many open files to accept a connection");
                    self.stop_accepting();
                    return;
                }
                Err(Errno::AGAIN) => return,
                Err(_) => {}
            }
        }
    }

    /// Until a connection closes or a sandbox ends.
    fn stop_accepting(&mut self) {
        self.accepting = false;
        self.watch.remove(&self.listener);
    }

    fn accept_again(&mut self) {
        let room = self.connections.len() < MAX_CONNECTIONS;
        if !self.accepting && room && self.freed {
            self.accepting = self.watch.add(&self.listener, Source::Listener).is_ok();
        }
        self.freed = false;
    }

    fn greet(&mut self, socket: OwnedFd) {
        if !peer::may_connect(&socket, self.group) {
            self.warn(
                "refused a connection of a user who is neither root nor in the socket's group",
            );
            return;
        }
        let key = self.new_key();
        let now = Instant::now();
        if self.watch.add(&socket, Source::Connection(key)).is_err() {
            return;
        }
        self.connections.insert(key, Connection::new(socket, now));
        self.bound(key, now);
        // The client sends its frame right after it connected: mostly it is there by now.
        self.serve(key);
    }

    fn bound(&mut self, key: u64, since: Instant) {
        if let Some(until) = since.checked_add(FRAME_BOUND) {
            self.bounds.insert((until, key));
        }
    }

    fn end_overdue(&mut self) {
        let now = Instant::now();
        while let Some((until, key)) = self.bounds.first().copied() {
            if until > now {
                return;
            }
            self.bounds.pop_first();
            let awaits = self.connections.get(&key).and_then(|c| c.awaits_since);
            match awaits.and_then(|since| since.checked_add(FRAME_BOUND)) {
                None => {}
                Some(until) if until > now => {
                    self.bounds.insert((until, key));
                }
                Some(_) => self.end_connection(key, "a frame did not come in time"),
            }
        }
    }

    /// Reads what a connection has sent, and sends what it is owed.
    fn serve(&mut self, key: u64) {
        for _ in 0..MAX_FRAMES {
            let Some(connection) = self.connections.get_mut(&key) else {
                return;
            };
            if let Err(lost) = connection.flush() {
                return self.end_connection(key, &lost.to_string());
            }
            if !connection.wants().0 {
                break;
            }
            let now = Instant::now();
            let awaited = connection.awaits_since.is_some();
            match connection.read(now) {
                Ok(Progress::Frame(frame)) => self.frame(key, frame),
                Ok(Progress::Pending) => {
                    if !awaited && connection.awaits_since.is_some() {
                        self.bound(key, now);
                    }
                    break;
                }
                Ok(Progress::Closed) => {
                    self.close(key);
                    return;
                }
                Err(error) => return self.end_connection(key, &error.to_string()),
            }
        }
        self.watch_connection(key);
    }

    fn frame(&mut self, key: u64, frame: Frame) {
        let parsed = request::parse(&frame.payload);
        let (Some(outcome), 1..) = (parsed, frame.stream) else {
            return self.end_connection(key, "a request is no JSON object, or on stream 0");
        };
        let asker = Asker {
            connection: key,
            stream: frame.stream,
        };
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let first = connection.role == Role::New;
        match outcome {
            Ok(Request::Create(create)) if first => {
                let Some(connection) = self.close(key) else {
                    return;
                };
                self.create(connection, frame.stream, create);
            }
            Ok(Request::Create(_)) => self.reply(
                asker,
                &Refusal::bad("create must be the first frame of a connection of its own."),
            ),
            // Whoever wanted a sandbox and asked wrongly must not find itself on a control connection.
            Err(refusal) if first && request::is_create(&frame.payload) => {
                self.reply(asker, &refusal);
                self.close(key);
            }
            other => {
                connection.role = Role::Control;
                connection.in_flight = connection.in_flight.saturating_add(1);
                match other {
                    Ok(request) => self.control(asker, request),
                    Err(refusal) => self.answer(asker, &refusal),
                }
            }
        }
    }

    /// Answers a control request; its last act.
    pub(crate) fn answer(&mut self, asker: Asker, reply: &impl Serialize) {
        if let Some(connection) = self.connections.get_mut(&asker.connection) {
            connection.in_flight = connection.in_flight.saturating_sub(1);
        }
        self.reply(asker, reply);
    }

    fn reply(&mut self, asker: Asker, reply: &impl Serialize) {
        match encode_json(FrameType::Reply, asker.stream, reply) {
            Ok(bytes) => self.send(
                asker.connection,
                Outgoing {
                    bytes: bytes.into(),
                    lease: None,
                },
            ),
            Err(error) => tracing::error!(%error, "a reply fits no frame"),
        }
    }

    /// Sends an event to every control connection.
    pub(crate) fn tell(&mut self, event: Outgoing) {
        let controls = self.connections.iter();
        let controls: Vec<u64> = controls
            .filter(|(_, connection)| connection.role == Role::Control)
            .map(|(key, _)| *key)
            .collect();
        for key in controls {
            self.send(key, event.clone());
        }
    }

    fn send(&mut self, key: u64, frame: Outgoing) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match connection.send(frame) {
            Ok(()) => self.watch_connection(key),
            Err(lost) => self.end_connection(key, &lost.to_string()),
        }
    }

    fn watch_connection(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let wants = connection.wants();
        if wants == connection.interest {
            return;
        }
        let source = Source::Connection(key);
        let changed = self
            .watch
            .change(&*connection, source, connection.interest, wants);
        connection.interest = wants;
        if let Err(error) = changed {
            self.end_connection(key, &error.to_string());
        }
    }

    fn end_connection(&mut self, key: u64, why: &str) {
        self.close(key);
        self.warn(&format!("ended a connection: {why}"));
    }

    /// Stops watching a connection; it closes when what is given is dropped.
    fn close(&mut self, key: u64) -> Option<Connection> {
        let connection = self.connections.remove(&key)?;
        self.watch.remove(&connection);
        let awaited = connection.awaits_since;
        if let Some(until) = awaited.and_then(|since| since.checked_add(FRAME_BOUND)) {
            self.bounds.remove(&(until, key));
        }
        self.freed = true;
        Some(connection)
    }

    /// A line that others can cause; a flood of them is cut.
    pub(crate) fn warn(&mut self, what: &str) {
        if let Some(left_out) = self.lines.take(Instant::now()) {
            tracing::warn!(left_out, "{what}");
        }
    }
}
