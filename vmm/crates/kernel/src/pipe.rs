//! Pipes and FIFOs inside the guest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use vmm_abi::*;
use vmm_memory::AddressSpace;
use vmm_snapshot::PipeState;

use crate::file::File;
use crate::syscalls::total;
use crate::wait::WaitQueue;

/// Bytes a pipe holds at first, the most it may be made to hold (pipe-max-size), and the most that are
/// written as one (pipe(7)).
const CAPACITY: usize = 64 << 10;
const MAX_CAPACITY: usize = 1 << 20;
const ATOMIC: usize = 4096;
/// Bytes that all open pipes of the guest may hold together. Beyond it a new pipe holds little, and none may
/// be made larger, as on Linux for each user (pipe-user-pages-soft of pipe(7), PIPE_MIN_DEF_BUFFERS).
const TOGETHER: usize = 64 << 20;
const LITTLE: usize = 2 * 4096;

/// What they may hold now. A process has one guest.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Changes what is held, unless that makes it grow over what all may have together.
fn hold(before: usize, after: usize) -> bool {
    HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
        let held = held.saturating_sub(before).saturating_add(after);
        (after <= before.max(LITTLE) || held <= TOGETHER).then_some(held)
    })
    .is_ok()
}

struct State {
    bytes: VecDeque<u8>,
    capacity: usize,
    readers: u32,
    writers: u32,
    /// How often either end has been opened, for those who wait in open(2) of a FIFO.
    readers_opened: u64,
    writers_opened: u64,
}

impl State {
    /// How often the other end has been opened, and whether it is open now.
    fn other_end(&self, reads: bool, writes: bool) -> (u64, bool) {
        match (reads, writes) {
            (true, false) => (self.writers_opened, self.writers > 0),
            (false, true) => (self.readers_opened, self.readers > 0),
            _ => (0, true),
        }
    }
}

/// What both ends share.
struct Pipe {
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    ino: u64,
}

/// An open end, or both (a FIFO opened with O_RDWR).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// How often the other end had been opened when this one was, and whether it was open then.
    met: (u64, bool),
}

fn new_pipe(ino: u64) -> Arc<Pipe> {
    Arc::new(Pipe {
        state: Mutex::new(State {
            bytes: VecDeque::new(),
            capacity: 0,
            readers: 0,
            writers: 0,
            readers_opened: 0,
            writers_opened: 0,
        }),
        queue: Arc::default(),
        ino,
    })
}

/// What fstat(2) shows of the next pipe.
static NEXT_INO: AtomicU64 = AtomicU64::new(1000);

/// An inode number for a pipe.
pub fn new_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// A new pipe: the end that is read and the end that is written; `ino` is what fstat shows of it.
#[must_use]
pub fn pipe(ino: u64) -> (Arc<PipeEnd>, Arc<PipeEnd>) {
    let pipe = new_pipe(ino);
    (
        PipeEnd::new(&pipe, true, false),
        PipeEnd::new(&pipe, false, true),
    )
}

/// A pipe that is brought back; its ends are opened one by one.
pub struct RestoredPipe(Arc<Pipe>);

impl RestoredPipe {
    /// With what was in it.
    #[must_use]
    pub fn new(state: &PipeState) -> Self {
        Self::fill(new_pipe(state.ino), state)
    }

    /// As [`RestoredPipe::new`], of a FIFO that has its node again.
    #[must_use]
    pub fn of_fifo(fifo: &Fifo, state: &PipeState) -> Self {
        Self::fill(Arc::clone(&fifo.0), state)
    }

    fn fill(pipe: Arc<Pipe>, state: &PipeState) -> Self {
        NEXT_INO.fetch_max(state.ino.saturating_add(1), Ordering::Relaxed);
        let mut inner = pipe.state.lock();
        let capacity = usize::try_from(state.capacity).unwrap_or(CAPACITY);
        let capacity = capacity.clamp(ATOMIC, MAX_CAPACITY);
        if hold(0, capacity) {
            inner.capacity = capacity;
            inner.bytes.extend(state.bytes.iter().take(capacity));
        }
        drop(inner);
        Self(pipe)
    }

    /// Another end.
    #[must_use]
    pub fn end(&self, reads: bool, writes: bool) -> Arc<PipeEnd> {
        PipeEnd::new(&self.0, reads, writes)
    }
}

/// A named pipe (fifo(7)).
pub struct Fifo(Arc<Pipe>);

impl Fifo {
    /// One that nobody has open.
    #[must_use]
    pub fn new(ino: u64) -> Self {
        Self(new_pipe(ino))
    }

    /// Opens it for the access mode in `flags`; whether the other end is there is asked of the answer.
    ///
    /// # Errors
    /// ENXIO for a write that would not wait, without a reader; EINVAL for no access mode.
    pub fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        let (reads, writes) = match flags & O_ACCMODE {
            0 => (true, false),
            O_WRONLY => (false, true),
            O_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        let alone = self.0.state.lock().readers == 0;
        if alone && writes && !reads && flags & O_NONBLOCK != 0 {
            return Err(Errno::ENXIO);
        }
        let end = PipeEnd::new(&self.0, reads, writes);
        self.0.queue.wake_all();
        Ok(end)
    }
}

impl PipeEnd {
    fn new(pipe: &Arc<Pipe>, reads: bool, writes: bool) -> Arc<Self> {
        let mut state = pipe.state.lock();
        if state.capacity == 0 {
            state.capacity = if hold(0, CAPACITY) {
                CAPACITY
            } else {
                hold(0, LITTLE);
                LITTLE
            };
        }
        let met = state.other_end(reads, writes);
        if reads {
            state.readers = state.readers.saturating_add(1);
            state.readers_opened = state.readers_opened.wrapping_add(1);
        }
        if writes {
            state.writers = state.writers.saturating_add(1);
            state.writers_opened = state.writers_opened.wrapping_add(1);
        }
        drop(state);
        Arc::new(Self {
            pipe: Arc::clone(pipe),
            reads,
            writes,
            met,
        })
    }

    /// Whether the other end has been open at any time since this one was opened. It may be closed again.
    #[must_use]
    pub fn has_met_other(&self) -> bool {
        let (opened, there) = self.met;
        there || self.pipe.state.lock().other_end(self.reads, self.writes).0 != opened
    }

    /// Which way it goes: whether it reads, whether it writes.
    #[must_use]
    pub fn directions(&self) -> (bool, bool) {
        (self.reads, self.writes)
    }

    /// What is in the pipe.
    #[must_use]
    pub fn state(&self) -> PipeState {
        let state = self.pipe.state.lock();
        PipeState {
            ino: self.pipe.ino,
            capacity: state.capacity as u64,
            bytes: state.bytes.iter().copied().collect(),
            fifo: None,
        }
    }

    /// Whether two ends are of one pipe.
    #[must_use]
    pub fn same_pipe(&self, other: &PipeEnd) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// Bytes it may hold (F_GETPIPE_SZ).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pipe.state.lock().capacity
    }

    /// Changes how many it may hold, rounded up as Linux does (F_SETPIPE_SZ); answers the size.
    ///
    /// # Errors
    /// EBUSY when more is in it, EPERM above what is allowed, EINVAL for a number that is none.
    pub fn set_capacity(&self, wanted: u64) -> Result<usize, Errno> {
        let wanted = u32::try_from(wanted).map_err(|_| Errno::EINVAL)?;
        let wanted = wanted.max(4096).checked_next_power_of_two();
        let wanted = wanted.ok_or(Errno::EINVAL)? as usize;
        if wanted > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        let mut state = self.pipe.state.lock();
        if state.bytes.len() > wanted {
            return Err(Errno::EBUSY);
        }
        if !hold(state.capacity, wanted) {
            return Err(Errno::EPERM);
        }
        state.capacity = wanted;
        drop(state);
        self.pipe.queue.wake_all();
        Ok(wanted)
    }

    fn available(&self, state: &State, wanted: u64) -> Result<usize, Errno> {
        if wanted == 0 || (state.bytes.is_empty() && state.writers == 0) {
            return Ok(0);
        }
        if state.bytes.is_empty() {
            return Err(Errno::EAGAIN);
        }
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Ok(state.bytes.len().min(wanted))
    }

    /// Hands the first bytes, at most `limit`, to `put` and with `take` removes those it took.
    ///
    /// # Errors
    /// EAGAIN when there are none yet, EBADF for an end that only writes, and what `put` says.
    pub fn pass_on(
        &self,
        limit: usize,
        take: bool,
        put: impl FnOnce(&[u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        /// Whoever holds two pipes at once has this, so that none waits for the other in a circle.
        static TWO_PIPES: Mutex<()> = Mutex::new(());
        if !self.reads {
            return Err(Errno::EBADF);
        }
        let _alone = TWO_PIPES.lock();
        let mut state = self.pipe.state.lock();
        let count = self.available(&state, limit as u64)?;
        if count == 0 {
            return Ok(0);
        }
        let bytes: Vec<u8> = state.bytes.range(..count).copied().collect();
        let passed = put(&bytes)?.min(count);
        if take {
            state.bytes.drain(..passed);
        }
        drop(state);
        self.pipe.queue.wake_all();
        Ok(passed)
    }

    /// Room for `wanted` bytes: all of it or none up to what is written as one.
    fn room(&self, state: &State, wanted: u64) -> Result<usize, Errno> {
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let room = state.capacity.saturating_sub(state.bytes.len());
        if room == 0 || (wanted <= ATOMIC && room < wanted) {
            return Err(Errno::EAGAIN);
        }
        Ok(room.min(wanted))
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        if self.reads {
            state.readers = state.readers.saturating_sub(1);
        }
        if self.writes {
            state.writers = state.writers.saturating_sub(1);
        }
        if state.readers == 0 && state.writers == 0 {
            // Its room goes, too: a FIFO that nobody has open is a name only.
            state.bytes = VecDeque::new();
            hold(state.capacity, 0);
            state.capacity = 0;
        }
        drop(state);
        self.pipe.queue.wake_all();
    }
}

impl File for PipeEnd {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0xd,
            ino: self.pipe.ino,
            nlink: 1,
            mode: S_IFIFO | 0o600,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let mut state = self.pipe.state.lock();
        let available = self.available(&state, total(to))?;
        if available == 0 {
            return Ok(0);
        }
        let bytes: Vec<u8> = state.bytes.range(..available).copied().collect();
        let done = memory.scatter(to, &bytes)?;
        state.bytes.drain(..done);
        drop(state);
        self.pipe.queue.wake_all();
        Ok(done as u64)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let wanted = total(from);
        if wanted == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state.lock();
        let room = self.room(&state, wanted)?;
        let bytes = memory.gather(from, room)?;
        state.bytes.extend(&bytes);
        drop(state);
        self.pipe.queue.wake_all();
        Ok(bytes.len() as u64)
    }

    fn put(&self, bytes: &[u8], _offset: u64) -> Result<usize, Errno> {
        if !self.writes {
            return Err(Errno::EBADF);
        }
        let mut state = self.pipe.state.lock();
        let room = self.room(&state, bytes.len() as u64)?;
        state.bytes.extend(bytes.iter().take(room));
        drop(state);
        self.pipe.queue.wake_all();
        Ok(room)
    }

    fn readiness(&self) -> u32 {
        let state = self.pipe.state.lock();
        let mut ready = 0;
        if self.reads {
            if !state.bytes.is_empty() {
                ready |= EPOLLIN;
            }
            if state.writers == 0 {
                ready |= EPOLLHUP;
            }
        }
        if self.writes {
            if state.capacity.saturating_sub(state.bytes.len()) >= ATOMIC {
                ready |= EPOLLOUT;
            }
            if state.readers == 0 {
                ready |= EPOLLERR;
            }
        }
        ready
    }

    fn tells_changes(&self, _events: u32) -> bool {
        true
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.pipe.queue)
    }

    fn ioctl(&self, memory: &AddressSpace, request: u32, argument: u64) -> Result<u64, Errno> {
        const FIONREAD: u32 = 0x541b;
        if request != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = u32::try_from(self.pipe.state.lock().bytes.len()).unwrap_or(u32::MAX);
        memory.write_value(argument, &count).map(|()| 0)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one test of this process that opens pipes: what they hold together is the process's.
    #[test]
    fn all_pipes_together_hold_a_bounded_number_of_bytes() {
        let mut ends = Vec::new();
        for ino in 0..(TOGETHER / CAPACITY) as u64 {
            ends.push(pipe(ino));
        }
        assert!(ends.iter().all(|(end, _)| end.capacity() == CAPACITY));
        let (little, _other) = pipe(9999);
        assert_eq!(little.capacity(), LITTLE);
        assert_eq!(little.set_capacity(CAPACITY as u64), Err(Errno::EPERM));
        assert_eq!(little.set_capacity(4096), Ok(4096));
        ends.truncate(ends.len() - 2);
        assert_eq!(pipe(10_000).0.capacity(), CAPACITY);
        drop(ends);
        assert_eq!(little.set_capacity(1 << 20), Ok(1 << 20));
    }
}
