//! The thread that waits for host descriptors on behalf of all guest threads.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};

use parking_lot::Mutex;
use rustix::event::epoll;
use vmm_abi::{EPOLLERR, EPOLLHUP, EPOLLRDHUP};

use crate::stream::{HostStream, ROOM};

struct Reactor {
    epoll: OwnedFd,
    /// They stay: the last reference to one must not be dropped by this thread, which may not close anything.
    waited_for: Mutex<Vec<Waited>>,
}

/// Who is told of a descriptor.
#[derive(Clone)]
enum Waited {
    Stream(Arc<HostStream>),
    Heard(Arc<dyn Fn() + Send + Sync>),
}

static REACTOR: OnceLock<Arc<Reactor>> = OnceLock::new();

/// What the host has been asked to tell of a stream.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Its place among those that the reactor waits for.
    place: Option<u64>,
    /// Whether room to write is told, too.
    room: bool,
}

/// Has every change of a stream told to its queue from now on: what can be read, its end, and room to write if `events` ask for it. An edge is told once
/// (EPOLLET), so whoever asks looks afterwards. Whether it will be told.
pub(crate) fn ask(stream: &HostStream, asked: &mut Asked, events: u32) -> bool {
    let Some(reactor) = REACTOR.get() else {
        return false;
    };
    let room = asked.room || events & ROOM != 0;
    if asked.place.is_some() && room == asked.room {
        return true;
    }
    reactor.tell(stream, asked, room)
}

/// Room to write need not be told any more.
pub(crate) fn forget_room(stream: &HostStream, asked: &mut Asked) {
    if let Some(reactor) = REACTOR.get().filter(|_| asked.room) {
        reactor.tell(stream, asked, false);
    }
}

/// Starts the thread that waits for host descriptors; once, before a guest runs. `confine` is the first that it does.
///
/// # Errors
/// What `confine` says, or the host when it gives no thread or descriptor.
pub fn start_reactor(confine: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let reactor = Arc::new(Reactor {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        waited_for: Mutex::new(Vec::new()),
    });
    let own = Arc::clone(&reactor);
    let (tell, told) = mpsc::sync_channel(1);
    let builder = std::thread::Builder::new()
        .name("reactor".into())
        .stack_size(64 << 10);
    builder.spawn(move || {
        let confined = confine();
        let stands = confined.is_ok();
        let _ = tell.send(confined);
        drop(tell);
        if stands {
            own.run();
        }
    })?;
    told.recv().map_err(io::Error::other)??;
    // A second one would only wait beside the first.
    let _ = REACTOR.set(reactor);
    Ok(())
}

/// Has `heard` called by the reactor when something has come to be read at a descriptor, or its other end was closed: once for all that is there (EPOLLET).
/// The descriptor must stay open, and `heard` may do no more than the reactor's list of host calls has: it reads without waiting, and drops nothing that is
/// closed with it.
///
/// # Errors
/// What epoll_ctl(2) says.
pub fn hear(fd: BorrowedFd<'_>, heard: Arc<dyn Fn() + Send + Sync>) -> io::Result<()> {
    let reactor = REACTOR.get().ok_or(io::ErrorKind::NotConnected)?;
    let mut waited_for = reactor.waited_for.lock();
    let place = epoll::EventData::new_u64(waited_for.len() as u64);
    let flags = epoll::EventFlags::ET | epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
    // Nothing is told before the list is free again.
    epoll::add(&reactor.epoll, fd, place, flags)?;
    waited_for.push(Waited::Heard(heard));
    Ok(())
}

impl Reactor {
    fn run(&self) {
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                let place = event.data.u64() as usize;
                let known = self.waited_for.lock().get(place).cloned();
                match known {
                    Some(Waited::Stream(stream)) => {
                        let flags = event.flags;
                        let ends = flags.bits() & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) != 0;
                        stream.changed(ends);
                    }
                    Some(Waited::Heard(heard)) => heard(),
                    None => {}
                }
            }
        }
    }

    /// Descriptors that the host's epoll refuses (regular files) are always ready, so nobody waits for them.
    fn tell(&self, stream: &HostStream, asked: &mut Asked, room: bool) -> bool {
        let mut flags = epoll::EventFlags::ET | epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if room {
            flags |= epoll::EventFlags::OUT;
        }
        let fd = stream.host_descriptor();
        let done = if let Some(place) = asked.place {
            epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(place), flags)
        } else {
            let Some(shared) = stream.shared() else {
                return false;
            };
            let mut waited_for = self.waited_for.lock();
            let place = waited_for.len() as u64;
            // Nothing is told before the list is free again.
            let added = epoll::add(&self.epoll, fd, epoll::EventData::new_u64(place), flags);
            if added.is_ok() {
                waited_for.push(Waited::Stream(shared));
                asked.place = Some(place);
            }
            added
        };
        asked.room = room;
        done.is_ok()
    }
}
