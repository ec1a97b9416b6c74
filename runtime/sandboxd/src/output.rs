//! What sandboxes write to descriptors 1 and 2, on its way to the control connections.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, read};

/// Frames of one sandbox's output that no client has taken yet, bytes.
const HELD_PER_SANDBOX_BYTES: usize = 64 << 10;
/// The same of all sandboxes.
const HELD_BYTES: usize = 1 << 20;
/// One read. JSON writes a byte in at most 6, so that an event always fits what one sandbox may hold.
pub const READ_BYTES: usize = 8 << 10;
/// A pipe is read so much in one period and then rests until the next, so that a flood cannot keep sandboxd busy.
const PERIOD: Duration = Duration::from_millis(100);
const PERIOD_BYTES: usize = 256 << 10;

type Counter = Rc<Cell<usize>>;

/// Room that a frame of output takes until the last connection has sent it.
pub struct Lease {
    bytes: usize,
    counters: [Counter; 2],
}

impl Drop for Lease {
    fn drop(&mut self) {
        for counter in &self.counters {
            counter.set(counter.get().saturating_sub(self.bytes));
        }
    }
}

/// How much output is held, in all.
#[derive(Default, Clone)]
pub struct Held {
    all: Counter,
}

impl Held {
    /// The account of a new sandbox.
    pub fn account(&self) -> Account {
        Account {
            all: Rc::clone(&self.all),
            own: Counter::default(),
        }
    }
}

/// How much output of one sandbox is held.
#[derive(Clone)]
pub struct Account {
    all: Counter,
    own: Counter,
}

impl Account {
    /// Room for a frame of that many bytes; None when there is too much already.
    pub fn lease(&self, bytes: usize) -> Option<Rc<Lease>> {
        let own = self.own.get().checked_add(bytes)?;
        let all = self.all.get().checked_add(bytes)?;
        if own > HELD_PER_SANDBOX_BYTES || all > HELD_BYTES {
            return None;
        }
        self.own.set(own);
        self.all.set(all);
        Some(Rc::new(Lease {
            bytes,
            counters: [Rc::clone(&self.own), Rc::clone(&self.all)],
        }))
    }
}

/// What one read of a pipe brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// Nothing now.
    Nothing,
    /// Nobody can write any more, or the pipe failed.
    End,
}

/// The read end of a sandbox's stdout or stderr; it does not block.
pub struct OutputPipe {
    pub fd: OwnedFd,
    /// 1 or 2.
    pub number: u8,
    /// The beginning of a character whose rest has not come.
    begun: Vec<u8>,
    cut_bytes: usize,
    period_began: Instant,
    period_bytes: usize,
}

impl OutputPipe {
    pub fn new(fd: OwnedFd, number: u8, now: Instant) -> Self {
        Self {
            fd,
            number,
            begun: Vec::new(),
            cut_bytes: 0,
            period_began: now,
            period_bytes: 0,
        }
    }

    /// Reads at most READ_BYTES.
    pub fn read(&mut self) -> Piece {
        let mut bytes = [0; READ_BYTES];
        match read(&self.fd, &mut bytes) {
            Ok(0) => Piece::End,
            Ok(got) => {
                self.period_bytes = self.period_bytes.saturating_add(got);
                Piece::Text(self.text(bytes.get(..got).unwrap_or_default()))
            }
            Err(Errno::AGAIN | Errno::INTR) => Piece::Nothing,
            Err(_) => Piece::End,
        }
    }

    /// When to read on, if this period's share is used up.
    pub fn rests_until(&mut self, now: Instant) -> Option<Instant> {
        if now.duration_since(self.period_began) >= PERIOD {
            (self.period_began, self.period_bytes) = (now, 0);
        }
        if self.period_bytes < PERIOD_BYTES {
            return None;
        }
        self.period_began.checked_add(PERIOD)
    }

    /// Counts bytes of text that found no room.
    pub fn cut(&mut self, bytes: usize) {
        self.cut_bytes = self.cut_bytes.saturating_add(bytes);
    }

    /// Bytes that were cut since this was last asked.
    pub fn take_cut(&mut self) -> usize {
        std::mem::take(&mut self.cut_bytes)
    }

    /// The characters that are whole; bytes that are none become U+FFFD.
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut rest = std::mem::take(&mut self.begun);
        rest.extend_from_slice(bytes);
        let mut text = String::with_capacity(rest.len());
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let incomplete = std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
            if chunks.peek().is_none() && incomplete {
                self.begun = invalid.to_vec();
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe() -> (OutputPipe, OwnedFd) {
        let (reading, writing) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        (OutputPipe::new(reading, 1, Instant::now()), writing)
    }

    #[test]
    fn characters_survive_being_split() {
        let (mut pipe, writing) = pipe();
        let mut heard = String::new();
        for byte in "aé€😀z".bytes() {
            rustix::io::write(&writing, &[byte]).unwrap();
            match pipe.read() {
                Piece::Text(text) => heard.push_str(&text),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, "aé€😀z");
        assert_eq!(pipe.read(), Piece::Nothing);
        drop(writing);
        assert_eq!(pipe.read(), Piece::End);
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        let (mut pipe, writing) = pipe();
        rustix::io::write(&writing, b"a\xff\xc3(b\xe2\x82").unwrap();
        assert_eq!(pipe.read(), Piece::Text("a\u{fffd}\u{fffd}(b".into()));
        rustix::io::write(&writing, b"\xac").unwrap();
        assert_eq!(pipe.read(), Piece::Text("€".into()));
    }

    #[test]
    fn what_is_held_is_bounded_per_sandbox_and_in_all() {
        let held = Held::default();
        let account = held.account();
        let first = account.lease(HELD_PER_SANDBOX_BYTES).unwrap();
        assert!(account.lease(1).is_none());
        let others: Vec<_> = (1..16)
            .map(|_| held.account().lease(HELD_PER_SANDBOX_BYTES).unwrap())
            .collect();
        assert!(held.account().lease(1).is_none());
        drop(first);
        assert!(account.lease(1).is_some());
        drop(others);
        assert_eq!(held.all.get(), 0);
    }

    #[test]
    fn cut_output_is_counted_until_it_is_noted() {
        let (mut pipe, _writing) = pipe();
        pipe.cut(5);
        pipe.cut(2);
        assert_eq!(pipe.take_cut(), 7);
        assert_eq!(pipe.take_cut(), 0);
    }

    #[test]
    fn a_flood_rests_until_the_next_period() {
        let (mut pipe, _writing) = pipe();
        let began = pipe.period_began;
        pipe.period_bytes = PERIOD_BYTES;
        assert_eq!(pipe.rests_until(began), Some(began + PERIOD));
        assert_eq!(pipe.rests_until(began + PERIOD), None);
    }
}
