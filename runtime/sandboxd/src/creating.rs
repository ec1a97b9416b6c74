//! What a `create` asks for, and where that comes from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::bundles::Bundle;
use crate::connection::Connection;
use crate::daemon::Daemon;
use crate::hypervisor::{Hypervisor, Machine, Task};
use crate::images::Image;
use crate::jobs::{AdoptJob, Job, ReplyTo, duplicate};
use crate::making::{say, too_many};
use crate::peer::{self, PeerProcess};
use crate::ready::{Next, Place, no_socket_yet, tell_beforehand};
use crate::refusal::{Code, Refusal};
use crate::request::{Create, Kind};
use crate::snapshots::{Freezer, Shape, Snapshot};
use crate::watch::Source;

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
    /// Starts making a sandbox whose descriptor 3 is the connection, or takes one that is ready.
    pub(crate) fn create(&mut self, connection: Connection, stream: u32, create: Create) {
        let socket = match connection.into_socket() {
            Ok(socket) => socket,
            Err(error) => return self.warn(&format!("a socket cannot be handed over: {error}")),
        };
        let mut ground = match self.ground(&socket, &create) {
            Ok(ground) => ground,
            Err(refusal) => return say(&socket, stream, &refusal),
        };
        let outcome = match ground.snapshot.take() {
            Some(snapshot) => {
                let any = Place::of(&ground.image, &create);
                let mut places = Vec::new();
                // One without a function, or of which nothing is known yet, gains nothing by being mapped before.
                let known = snapshot.bundle().is_some() && snapshot.learned().is_some();
                if let Some(id) = create.snapshot.as_ref().filter(|_| known) {
                    places.push(any.for_snapshot(id));
                }
                let own = places.first().and_then(|own| self.take_ready(own));
                let ready = own.or_else(|| {
                    let taken = self.take_ready(&any);
                    places.push(any);
                    taken
                });
                let of = (&snapshot, Next::new(places, &ground.image, &create));
                match ready {
                    Some(key) => self.adopt(key, &socket, stream, &create, ground, of),
                    None => self.start_spawn(&socket, stream, &create, ground, Some(of)),
                }
            }
            None => self.start_spawn(&socket, stream, &create, ground, None),
        };
        if let Err(error) = outcome {
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
        let served = self.sandboxes.len().saturating_sub(self.ready.len());
        if served >= self.options.max_sandboxes as usize {
            return Err(too_many());
        }
        let image = self.images.get(&create.image)?;
        let snapshot = match &create.snapshot {
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

    /// A new sandbox. On failure nothing is left of it.
    fn start_spawn(
        &mut self,
        socket: &OwnedFd,
        stream: u32,
        create: &Create,
        ground: Ground,
        of: Option<(&Arc<Snapshot>, Next)>,
    ) -> io::Result<()> {
        let (snapshot, next) = of.unzip();
        let socket_again = duplicate(socket.as_fd())?;
        let reply_to = ReplyTo::by(socket, stream)?.then(next);
        // A monitor gets its guest's socket with what it is told.
        let (fd3, told) = match snapshot {
            Some(snapshot) => {
                let told = tell_beforehand(snapshot, socket_again);
                let told = told.map_err(|refusal| io::Error::other(refusal.message))?;
                (no_socket_yet()?, Some((snapshot, told)))
            }
            None => (socket_again, None),
        };
        let mut making = self.making(create, &ground.image, fd3)?;
        if let Some(hypervisor) = &ground.hypervisor {
            let counters = making.count(&self.counters)?;
            let mut machine = Machine::new(Arc::clone(hypervisor), counters);
            if create.freezable {
                let shape = Shape::of(&ground.image, create);
                let (freezer, by) = Freezer::new(shape, create.bundle.clone())?;
                making.freezer = Some(freezer);
                machine = machine.freezable(Some(by));
            }
            let task = match told {
                Some((snapshot, (resetter, theirs))) => {
                    making.resetter = Some(resetter);
                    making.snapshot = Some(Arc::clone(snapshot));
                    machine = machine.hearing(Some(theirs));
                    Task::Wait { likely: false }
                }
                None => Task::Boot {
                    freezable: create.freezable,
                },
            };
            making.in_machine(machine, task);
        }
        making.label.clone_from(&create.label);
        making.bundle = ground.bundle;
        making.client = self.join(ground.peer, making.key)?;
        making.reply_to = Some(reply_to);
        self.make(making)
    }

    /// Has one that is ready bring a snapshot back.
    fn adopt(
        &mut self,
        key: u64,
        socket: &OwnedFd,
        stream: u32,
        create: &Create,
        ground: Ground,
        of: (&Arc<Snapshot>, Next),
    ) -> io::Result<()> {
        let (snapshot, next) = of;
        let reply_to = ReplyTo::by(socket, stream).map(|reply_to| reply_to.then(Some(next)));
        let outcome =
            reply_to.and_then(|to| self.start_adopt(key, socket, to, create, ground, snapshot));
        if outcome.is_err() {
            self.kill_now(key);
        }
        outcome
    }

    fn start_adopt(
        &mut self,
        key: u64,
        socket: &OwnedFd,
        reply_to: ReplyTo,
        create: &Create,
        ground: Ground,
        snapshot: &Arc<Snapshot>,
    ) -> io::Result<()> {
        let gone = || io::Error::other("the micro-VM that was ready has ended");
        let fd3 = duplicate(socket.as_fd())?;
        let client = self.join(ground.peer, key)?;
        let entry = self.sandboxes.get_mut(key).ok_or_else(gone)?;
        entry.client = client;
        entry.label.clone_from(&create.label);
        entry.assigned = ground.bundle.is_some();
        let waiting = entry.waiting.take().ok_or_else(gone)?;
        entry.resetter = Some(waiting.resetter()?);
        entry.snapshot = Some(Arc::clone(snapshot));
        let bundle = ground.bundle.filter(|_| !waiting.is_of_snapshot());
        let sandbox = entry.sandbox.clone().ok_or_else(gone)?;
        entry.jobs = entry.jobs.saturating_add(1);
        self.jobs.start_job(Job::Adopt(Box::new(AdoptJob {
            key,
            sandbox,
            bundle,
            order: waiting.order(Arc::clone(snapshot), fd3),
            reply_to,
        })));
        Ok(())
    }

    /// Notes who asked for a sandbox, which is to end with it; answers that client's key.
    fn join(&mut self, peer: PeerProcess, key: u64) -> io::Result<u64> {
        let joined = self.clients.join(peer, key);
        let client = joined.client;
        let watched = match joined.watch {
            Some(pidfd) => self.watch.add(pidfd, Source::Client(client)),
            None => Ok(()),
        };
        if let Err(error) = watched {
            self.clients.leave(client, key);
            return Err(error);
        }
        Ok(client)
    }
}
