//! Descriptors of the monitor that a guest may use: its standard streams and the socket at 3.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_abi::inside::INLET_BYTES;
use vmm_abi::{
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLWRNORM, Errno, Iovec, O_ACCMODE, O_RDWR, S_IFCHR,
    S_IFIFO, S_IFMT, S_IFSOCK, Stat,
};
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::inlet::Inlet;
use crate::inside::Board;
use crate::reactor::{self, Asked};
use crate::syscalls::{rest_of, total};
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
    me: Weak<Self>,
    /// One registration at the host serves all waiters.
    asked: Mutex<Asked>,
    /// Of a socket. Locked before anything is read from it.
    inlet: Mutex<Inlet>,
}

/// Events that mean room to write.
pub(crate) const ROOM: u32 = EPOLLOUT | EPOLLWRNORM;
/// The descriptor of the socket that a guest is given.
const GIVEN: i32 = 3;
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
        let access = match mode & S_IFMT {
            S_IFSOCK => O_RDWR,
            _ => rustix::fs::fcntl_getfl(&fd).map_err(errno)?.bits() & O_ACCMODE,
        };
        Ok(Arc::new_cyclic(|me| Self {
            number,
            fd,
            mode,
            access,
            queue: Arc::default(),
            me: Weak::clone(me),
            asked: Mutex::default(),
            inlet: Mutex::new(Inlet::new()),
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

    /// Lets guest code read by that board, if this is the socket that a guest is given.
    pub(crate) fn join(&self, board: &Board) -> bool {
        let joins = self.number == GIVEN && self.is_socket();
        if joins {
            self.inlet.lock().join(board);
        }
        joins
    }

    /// Another reference to it; none while it is made.
    pub(crate) fn shared(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    pub(crate) fn host_descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The host tells that something may be different now; `ends` if no more can come, or something failed.
    pub(crate) fn changed(&self, ends: bool) {
        let mut inlet = self.inlet.lock();
        inlet.changed(ends);
        // Whoever is woken for it need not go out of the guest to read it.
        if self.is_socket() && inlet.has_room() {
            let mut bytes = [0u8; INLET_BYTES];
            match self.take(&mut bytes) {
                Ok((0, _)) => inlet.changed(true),
                Ok((count, all)) => inlet.put(bytes.get(..count).unwrap_or_default(), all),
                Err(Errno::EAGAIN) => inlet.drained(),
                // Whoever reads is to hear it.
                Err(_) => {}
            }
        }
        drop(inlet);
        self.queue.wake_all();
    }

    /// Reads from a socket of the host; how much, and whether that is all it has.
    fn take(&self, bytes: &mut [u8]) -> Result<(usize, bool), Errno> {
        let mut range = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: an all-zero msghdr is a valid one; its range is the exclusive buffer.
        let (result, flags) = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut range;
            message.msg_iovlen = 1;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let result = libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags);
            (result, message.msg_flags)
        };
        let count =
            usize::try_from(result).map_err(|_| Errno::from(std::io::Error::last_os_error()))?;
        // What was sent with something else than bytes is not joined to what follows.
        let all = count < bytes.len() && flags & libc::MSG_CTRUNC == 0;
        Ok((count, all))
    }

    /// Reads from a socket: first what was taken out of it already.
    fn receive(&self, memory: &AddressSpace, to: &[Iovec]) -> Result<u64, Errno> {
        let total = total(to);
        // Whatever the socket holds, and also where nothing can come (sock_read_iter of Linux).
        if total == 0 {
            return Ok(0);
        }
        let mut inlet = self.inlet.lock();
        let done = match inlet.read_from(|bytes| memory.scatter(to, bytes)) {
            None => 0,
            Some(Err(errno)) => return Err(errno),
            Some(Ok(count)) => count as u64,
        };
        if done > 0 && (done >= total || inlet.is_known() || !inlet.bytes().is_empty()) {
            return Ok(done);
        }
        if inlet.is_known() {
            return Err(Errno::EAGAIN);
        }
        let rest = rest_of(to, done);
        let more = memory
            .host_iovecs(&rest)
            .and_then(|list| self.transfer(list, false));
        match more {
            Err(Errno::EAGAIN) => inlet.drained(),
            Ok(0) => inlet.changed(true),
            // Fewer bytes than there is room for may also mean that the guest's memory ends.
            _ => inlet.changed(false),
        }
        match more {
            Ok(count) => Ok(done.saturating_add(count)),
            Err(_) if done > 0 => Ok(done),
            Err(errno) => Err(errno),
        }
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
        let mut inlet = self.inlet.lock();
        inlet.wipe();
        loop {
            match self.take(&mut bytes) {
                Ok((0, _)) => return Err(Errno::EPIPE),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    inlet.drained();
                    return Ok(());
                }
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
        if self.is_socket() {
            return self.receive(memory, to);
        }
        self.transfer(memory.host_iovecs(to)?, false)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let written = self.transfer(memory.host_iovecs(from)?, true);
        if written.is_ok() {
            reactor::forget_room(self, &mut self.asked.lock());
        }
        written
    }

    fn put(&self, bytes: &[u8], _offset: u64) -> Result<usize, Errno> {
        let range = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        self.transfer(vec![range], true).map(|count| count as usize)
    }

    fn readiness(&self) -> u32 {
        self.readiness_of(EPOLLIN | EPOLLOUT)
    }

    fn readiness_of(&self, events: u32) -> u32 {
        let mut inlet = self.inlet.lock();
        let here = if inlet.bytes().is_empty() { 0 } else { EPOLLIN };
        if inlet.is_known() && events & ROOM == 0 {
            return here;
        }
        let found = self.ready(PollFlags::IN | PollFlags::OUT);
        if self.is_socket() && (found & !PollFlags::OUT).is_empty() {
            inlet.drained();
        }
        let pairs = [
            (PollFlags::IN, EPOLLIN),
            (PollFlags::OUT, EPOLLOUT),
            (PollFlags::HUP, EPOLLHUP),
            (PollFlags::ERR, EPOLLERR),
        ];
        pairs
            .iter()
            .filter(|(flag, _)| found.contains(*flag))
            .fold(here, |mask, (_, bit)| mask | bit)
    }

    fn tells_changes(&self, events: u32) -> bool {
        self.is_socket() && events & ROOM == 0 && self.inlet.lock().is_the_boards()
    }

    fn is_inlet(&self) -> bool {
        self.inlet.lock().is_the_boards()
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn arm(&self, events: u32) {
        let told = reactor::ask(self, &mut self.asked.lock(), events);
        if told {
            self.inlet.lock().is_told();
        } else {
            // Nobody would tell: let them look again.
            self.queue.wake_all();
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
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
