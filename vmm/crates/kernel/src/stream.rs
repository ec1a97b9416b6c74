//! Descriptors of the monitor that a guest may use: its standard streams and the socket at 3.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::epoll;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_abi::{
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Errno, Iovec, O_ACCMODE, S_IFCHR, S_IFIFO, S_IFMT,
    S_IFSOCK, Stat,
};
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::wait::WaitQueue;

/// A pipe, terminal or connected socket of the host.
#[derive(Debug)]
pub struct HostStream {
    /// The descriptor that the guest was first given it at.
    number: i32,
    fd: OwnedFd,
    mode: u32,
    access: u32,
    queue: Arc<WaitQueue>,
    id: OnceLock<u64>,
    interest: Arc<Interest>,
}

/// EPOLL* events that somebody waits for since the last wake: one registration at the host serves all waiters, so what one of them
/// asks for must not replace what another one does.
type Interest = Mutex<u32>;

/// Bytes that are thrown away at once.
const PIECE: usize = 64 << 10;
/// Bytes a pipe takes without blocking whenever poll(2) says it is writable (PIPE_BUF).
const PIPE_BUF: usize = 4096;

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

impl HostStream {
    /// Takes a descriptor of the monitor for the guest's use, to be given to it as `number`.
    ///
    /// # Errors
    /// EBADF, or EINVAL for a regular file or folder.
    pub fn new(fd: OwnedFd, number: i32) -> Result<Arc<Self>, Errno> {
        let mode = rustix::fs::fstat(&fd).map_err(errno)?.st_mode;
        let access = rustix::fs::fcntl_getfl(&fd).map_err(errno)?.bits() & O_ACCMODE;
        Ok(Arc::new(Self {
            number,
            fd,
            mode,
            access,
            queue: Arc::default(),
            id: OnceLock::new(),
            interest: Arc::default(),
        }))
    }

    /// The descriptor that the guest was first given it at.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.number
    }

    /// The access mode it was opened with (O_ACCMODE).
    #[must_use]
    pub fn access(&self) -> u32 {
        self.access
    }

    /// Whether it is a socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.mode & S_IFMT == S_IFSOCK
    }

    /// shutdown(2) of a socket.
    ///
    /// # Errors
    /// EINVAL for a direction that is none, ENOTSOCK, ENOTCONN.
    pub fn shutdown(&self, how: i32) -> Result<(), Errno> {
        use rustix::net::Shutdown;
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Err(Errno::EINVAL),
        };
        rustix::net::shutdown(&self.fd, how).map_err(errno)
    }

    /// Takes out of a socket what nobody has read, for one who has no use for it.
    ///
    /// # Errors
    /// ENOTSOCK, EPIPE when no more can come, or what the host says.
    pub fn discard(&self) -> Result<(), Errno> {
        if !self.is_socket() {
            return Err(Errno::ENOTSOCK);
        }
        let mut bytes = vec![0u8; PIECE];
        loop {
            let range = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            };
            match self.transfer(vec![range], false) {
                Ok(0) => return Err(Errno::EPIPE),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Writes all of `bytes`, waiting for whoever reads them, for so long each time that there is no room.
    ///
    /// # Errors
    /// ETIMEDOUT, or what the host says.
    pub fn put_all(&self, bytes: &[u8], patience: Duration) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.put(rest, 0) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.ready_within(PollFlags::OUT, patience).is_empty() => {
                    return Err(Errno::ETIMEDOUT);
                }
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn ready(&self, wanted: PollFlags) -> PollFlags {
        self.ready_within(wanted, Duration::ZERO)
    }

    fn ready_within(&self, wanted: PollFlags, time: Duration) -> PollFlags {
        let mut list = [PollFd::new(&self.fd, wanted)];
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        match poll(&mut list, Some(&time)) {
            Ok(_) => list.first().map_or(PollFlags::empty(), PollFd::revents),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Moves bytes of ranges that are valid for it or lie in the guest window.
    fn transfer(&self, mut list: Vec<libc::iovec>, write: bool) -> Result<u64, Errno> {
        if self.is_socket() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: an all-zero msghdr is a valid one; its ranges lie in the guest window, which
            // no Rust reference points into and whose pages the host checks, or are only read.
            let result = unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = list.as_mut_ptr();
                message.msg_iovlen = list.len();
                if write {
                    libc::sendmsg(self.fd.as_raw_fd(), &message, flags)
                } else {
                    libc::recvmsg(self.fd.as_raw_fd(), &mut message, flags)
                }
            };
            return u64::try_from(result).map_err(|_| std::io::Error::last_os_error().into());
        }
        let wanted = if write { PollFlags::OUT } else { PollFlags::IN };
        if matches!(self.mode & S_IFMT, S_IFIFO | S_IFCHR) {
            if self.ready(wanted).is_empty() {
                return Err(Errno::EAGAIN);
            }
            if write {
                shorten(&mut list, PIPE_BUF);
            }
        }
        let count = i32::try_from(list.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: as above.
        let result = unsafe {
            if write {
                libc::writev(self.fd.as_raw_fd(), list.as_ptr(), count)
            } else {
                libc::readv(self.fd.as_raw_fd(), list.as_ptr(), count)
            }
        };
        u64::try_from(result).map_err(|_| std::io::Error::last_os_error().into())
    }
}

/// Cuts a list of ranges to `limit` bytes.
fn shorten(list: &mut [libc::iovec], limit: usize) {
    let mut left = limit;
    for entry in list {
        entry.iov_len = entry.iov_len.min(left);
        left = left.saturating_sub(entry.iov_len);
    }
}

impl File for HostStream {
    fn stat(&self) -> Result<Stat, Errno> {
        let mode = self.mode;
        Ok(Stat {
            dev: 0xd,
            ino: 1,
            nlink: 1,
            mode,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        self.transfer(memory.host_iovecs(to)?, false)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        self.transfer(memory.host_iovecs(from)?, true)
    }

    fn put(&self, bytes: &[u8], _offset: u64) -> Result<usize, Errno> {
        let range = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        self.transfer(vec![range], true).map(|count| count as usize)
    }

    fn readiness(&self) -> u32 {
        let found = self.ready(PollFlags::IN | PollFlags::OUT);
        let pairs = [
            (PollFlags::IN, EPOLLIN),
            (PollFlags::OUT, EPOLLOUT),
            (PollFlags::HUP, EPOLLHUP),
            (PollFlags::ERR, EPOLLERR),
        ];
        pairs
            .iter()
            .filter(|(flag, _)| found.contains(*flag))
            .fold(0, |mask, (_, bit)| mask | bit)
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn arm(&self, events: u32) {
        match REACTOR.get() {
            Some(reactor) => reactor.arm(self, events),
            // Nobody would tell: let them look again.
            None => self.queue.wake_all(),
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// The thread that waits for host descriptors on behalf of all guest threads.
struct Reactor {
    epoll: OwnedFd,
    waited_for: Mutex<Vec<(Weak<WaitQueue>, Arc<Interest>)>>,
}

static REACTOR: OnceLock<Arc<Reactor>> = OnceLock::new();

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
                let index = event.data.u64() as usize;
                let known = self.waited_for.lock().get(index).cloned();
                let Some((queue, interest)) = known else {
                    continue;
                };
                // Before the wake: whoever is woken asks anew for what it still waits for.
                *interest.lock() = 0;
                if let Some(queue) = queue.upgrade() {
                    queue.wake_all();
                }
            }
        }
    }

    /// Asks for one wake of the queue. Descriptors that the host's epoll refuses (regular files) are
    /// always ready, so nobody waits for them.
    fn arm(&self, stream: &HostStream, events: u32) {
        // Held until the host has been told, so that it is told of what both of two askers want.
        let mut interest = stream.interest.lock();
        *interest |= events;
        let known = stream.id.get().is_some();
        let id = *stream.id.get_or_init(|| {
            let mut waited_for = self.waited_for.lock();
            waited_for.push((Arc::downgrade(&stream.queue), Arc::clone(&stream.interest)));
            waited_for.len().saturating_sub(1) as u64
        });
        let mut flags = epoll::EventFlags::ONESHOT;
        if *interest & EPOLLIN != 0 {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if *interest & EPOLLOUT != 0 {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(id);
        let done = if known {
            epoll::modify(&self.epoll, &stream.fd, data, flags)
        } else {
            epoll::add(&self.epoll, &stream.fd, data, flags)
        };
        drop(interest);
        if done.is_err() {
            stream.queue.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::clock;
    use crate::wait::{Parker, Wake};

    #[test]
    fn who_waits_for_a_hang_up_takes_no_wake_from_who_waits_for_bytes() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let stream = HostStream::new(theirs.into(), 3).unwrap();
        let parker = Arc::new(Parker::default());
        parker.adopt_this_thread();
        let _registration = stream.queue.register(Arc::clone(&parker) as Arc<dyn Wake>);
        for _ in 0..3 {
            parker.clear();
            stream.arm(EPOLLIN);
            stream.arm(0);
            ours.write_all(b"x").unwrap();
            let bound = clock::monotonic_ns() + 10_000_000_000;
            assert!(parker.park(Some(bound)), "nobody was woken");
        }
    }
}
