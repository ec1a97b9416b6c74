//! One accepted connection, until it is a sandbox's or closed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

use cloister_protocol::{ExactReader, FrameType, Progress, ReadError};

use crate::output::Lease;

/// No request needs more, bytes.
pub const MAX_REQUEST_BYTES: usize = 65_536;
/// Replies and exit events that a client has not read; with more it is cut off.
const MAX_OWED_BYTES: usize = 1 << 20;
/// Requests of one connection that are under way; more are not read.
const MAX_IN_FLIGHT: usize = 256;

/// A frame as bytes; several connections may owe the same one.
#[derive(Clone)]
pub struct Outgoing {
    pub bytes: Rc<[u8]>,
    /// Output has room of its own; everything else counts as owed.
    pub lease: Option<Rc<Lease>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its first frame has not come.
    New,
    Control,
}

/// The connection must be ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("the client does not read what it is sent")]
    Slow,
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
}

pub struct Connection {
    socket: UnixStream,
    reader: ExactReader,
    pub role: Role,
    queue: VecDeque<Outgoing>,
    /// Bytes of the first queued frame that are sent.
    sent: usize,
    owed_bytes: usize,
    pub in_flight: usize,
    /// Since when a frame is awaited that must come: the first, or the rest of one.
    pub awaits_since: Option<Instant>,
    /// What epoll is told to watch.
    pub interest: (bool, bool),
}

impl Connection {
    /// `socket` does not block.
    pub fn new(socket: OwnedFd, now: Instant) -> Self {
        Self {
            socket: UnixStream::from(socket),
            reader: ExactReader::new(MAX_REQUEST_BYTES, |kind| kind == FrameType::Request),
            role: Role::New,
            queue: VecDeque::new(),
            sent: 0,
            owed_bytes: 0,
            in_flight: 0,
            awaits_since: Some(now),
            interest: (true, false),
        }
    }

    /// Reads until one frame is whole; never a byte beyond it.
    pub fn read(&mut self, now: Instant) -> Result<Progress, ReadError> {
        let progress = self.reader.read(&mut self.socket)?;
        self.awaits_since = match progress {
            Progress::Pending if self.role == Role::New || self.reader.partial() => {
                self.awaits_since.or(Some(now))
            }
            _ => None,
        };
        Ok(progress)
    }

    /// Sends a frame, or as much of it as goes now.
    pub fn send(&mut self, frame: Outgoing) -> Result<(), Lost> {
        if frame.lease.is_none() {
            self.owed_bytes = self.owed_bytes.saturating_add(frame.bytes.len());
            if self.owed_bytes > MAX_OWED_BYTES {
                return Err(Lost::Slow);
            }
        }
        self.queue.push_back(frame);
        self.flush()
    }

    /// Sends what is queued, as far as it goes now.
    pub fn flush(&mut self) -> Result<(), Lost> {
        while let Some(frame) = self.queue.front() {
            let rest = frame.bytes.get(self.sent..).unwrap_or_default();
            match self.socket.write(rest) {
                Ok(bytes) if bytes < rest.len() => self.sent = self.sent.saturating_add(bytes),
                Ok(_) => {
                    if frame.lease.is_none() {
                        self.owed_bytes = self.owed_bytes.saturating_sub(frame.bytes.len());
                    }
                    self.sent = 0;
                    self.queue.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether to watch for reading, and for writing.
    pub fn wants(&self) -> (bool, bool) {
        (self.in_flight < MAX_IN_FLIGHT, !self.queue.is_empty())
    }

    /// Gives up the socket, blocking from here on, as runners expect it.
    pub fn into_socket(self) -> io::Result<OwnedFd> {
        self.socket.set_nonblocking(false)?;
        Ok(self.socket.into())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Held;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Connection::new(ours.into(), Instant::now()), theirs)
    }

    fn frame(bytes: usize, lease: Option<Rc<Lease>>) -> Outgoing {
        let bytes = vec![0; bytes].into();
        Outgoing { bytes, lease }
    }

    #[test]
    fn who_does_not_read_is_cut_off_and_holds_no_more_than_a_bound() {
        let (mut connection, _theirs) = pair();
        let frames = (0..100).take_while(|_| connection.send(frame(65_536, None)).is_ok());
        assert!((16..32).contains(&frames.count()));
        assert!(connection.owed_bytes <= MAX_OWED_BYTES + 65_536);
    }

    #[test]
    fn room_for_output_comes_back_when_it_is_sent() {
        let (mut connection, theirs) = pair();
        let account = Held::default().account();
        let mut leased = 0;
        while let Some(lease) = account.lease(30_000) {
            connection.send(frame(30_000, Some(lease))).unwrap();
            leased += 1;
            assert!(leased < 1000);
        }
        assert_eq!(connection.wants(), (true, true));
        let reading = std::thread::spawn(move || {
            let mut theirs = theirs;
            let mut bytes = vec![0; leased * 30_000];
            io::Read::read_exact(&mut theirs, &mut bytes).unwrap();
            theirs
        });
        connection.socket.set_nonblocking(false).unwrap();
        connection.flush().unwrap();
        let _theirs = reading.join().unwrap();
        assert!(account.lease(60_000).is_some());
    }
}
