//! Waiting for descriptors: epoll(7), level-triggered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// What a descriptor is. The numbers are keys that are never used twice, so a late event meets nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Listener,
    Signal,
    Done,
    Connection(u64),
    /// A sandbox's pid 1.
    Sandbox(u64),
    Client(u64),
    /// A sandbox's output: its key, and 1 or 2.
    Output(u64, u8),
}

const KEY_BITS: u32 = 56;

impl Source {
    fn token(self) -> u64 {
        let (kind, key): (u64, u64) = match self {
            Self::Listener => (0, 0),
            Self::Signal => (1, 0),
            Self::Done => (2, 0),
            Self::Connection(key) => (3, key),
            Self::Sandbox(key) => (4, key),
            Self::Client(key) => (5, key),
            Self::Output(key, 1) => (6, key),
            Self::Output(key, _) => (7, key),
        };
        (kind << KEY_BITS) | (key & ((1 << KEY_BITS) - 1))
    }

    fn of(token: u64) -> Option<Self> {
        let key = token & ((1 << KEY_BITS) - 1);
        Some(match token >> KEY_BITS {
            0 => Self::Listener,
            1 => Self::Signal,
            2 => Self::Done,
            3 => Self::Connection(key),
            4 => Self::Sandbox(key),
            5 => Self::Client(key),
            6 => Self::Output(key, 1),
            7 => Self::Output(key, 2),
            _ => return None,
        })
    }
}

const EVENTS: usize = 128;

/// The descriptors that are watched.
pub struct Watch {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    pub fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let data = EventData::new_u64(source.token());
        Ok(epoll::add(&self.epoll, fd, data, EventFlags::IN)?)
    }

    /// Watches for reading, for writing, or for neither: then not at all, since epoll(7) always tells of a hang-up. `from` is what
    /// it is watched for now.
    pub fn change(
        &self,
        fd: impl AsFd,
        source: Source,
        from: (bool, bool),
        to: (bool, bool),
    ) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, to.0);
        flags.set(EventFlags::OUT, to.1);
        let data = EventData::new_u64(source.token());
        match (from, to) {
            (_, (false, false)) => self.remove(fd),
            ((false, false), _) => epoll::add(&self.epoll, fd, data, flags)?,
            _ => epoll::modify(&self.epoll, fd, data, flags)?,
        }
        Ok(())
    }

    pub fn remove(&self, fd: impl AsFd) {
        // Fails only for one that is not watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something can be done, or `until`.
    pub fn wait(&mut self, now: Instant, until: Option<Instant>) -> io::Result<Vec<Source>> {
        let timeout = until.map(|until| timespec(until.saturating_duration_since(now)));
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let tokens = self.events.iter().map(|event| {
            let data = event.data;
            data.u64()
        });
        Ok(tokens.filter_map(Source::of).collect())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_back_from_their_tokens() {
        for source in [
            Source::Listener,
            Source::Signal,
            Source::Done,
            Source::Connection(1),
            Source::Sandbox((1 << KEY_BITS) - 1),
            Source::Client(3),
            Source::Output(4, 1),
            Source::Output(5, 2),
        ] {
            assert_eq!(Source::of(source.token()), Some(source));
        }
        assert_eq!(Source::of(u64::MAX), None);
    }
}
