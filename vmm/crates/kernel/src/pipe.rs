//! Pipes inside the guest.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::wait::WaitQueue;

/// Bytes a pipe holds, and the most that are written as one (pipe(7)).
const CAPACITY: usize = 64 << 10;
const ATOMIC: usize = 4096;

struct State {
    bytes: VecDeque<u8>,
    readers: bool,
    writers: bool,
}

struct Pipe {
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    ino: u64,
}

impl Pipe {
    fn stat(&self) -> Stat {
        let mode = S_IFIFO | 0o600;
        Stat {
            dev: 0xd,
            ino: self.ino,
            nlink: 1,
            mode,
            blksize: 4096,
            ..Stat::default()
        }
    }

    fn close(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.queue.wake_all();
    }
}

/// The end that is read.
pub struct PipeReader(Arc<Pipe>);

/// The end that is written.
pub struct PipeWriter(Arc<Pipe>);

/// A new pipe; `ino` is what fstat shows of it.
#[must_use]
pub fn pipe(ino: u64) -> (Arc<PipeReader>, Arc<PipeWriter>) {
    pipe_told_by(Arc::default(), ino)
}

/// As `pipe`, with a queue that is told of its changes.
pub(crate) fn pipe_told_by(queue: Arc<WaitQueue>, ino: u64) -> (Arc<PipeReader>, Arc<PipeWriter>) {
    let state = State {
        bytes: VecDeque::new(),
        readers: true,
        writers: true,
    };
    let pipe = Arc::new(Pipe {
        state: Mutex::new(state),
        queue,
        ino,
    });
    (
        Arc::new(PipeReader(Arc::clone(&pipe))),
        Arc::new(PipeWriter(pipe)),
    )
}

impl PipeReader {
    /// Reads no more.
    pub(crate) fn leave(&self) {
        self.0.close(|state| state.readers = false);
    }
}

impl PipeWriter {
    /// Writes no more.
    pub(crate) fn leave(&self) {
        self.0.close(|state| state.writers = false);
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.leave();
    }
}

impl File for PipeReader {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.0.stat())
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let wanted = to
            .iter()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.len));
        let mut state = self.0.state.lock();
        if wanted == 0 {
            return Ok(0);
        }
        if state.bytes.is_empty() {
            return if state.writers {
                Err(Errno::EAGAIN)
            } else {
                Ok(0)
            };
        }
        let available = state
            .bytes
            .len()
            .min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let bytes: Vec<u8> = state.bytes.range(..available).copied().collect();
        let done = memory.scatter(to, &bytes)?;
        state.bytes.drain(..done);
        drop(state);
        self.0.queue.wake_all();
        Ok(done as u64)
    }

    fn readiness(&self) -> u32 {
        let state = self.0.state.lock();
        let data = if state.bytes.is_empty() { 0 } else { EPOLLIN };
        data | if state.writers { 0 } else { EPOLLHUP }
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.0.queue)
    }

    fn ioctl(&self, memory: &AddressSpace, request: u32, argument: u64) -> Result<u64, Errno> {
        const FIONREAD: u32 = 0x541b;
        if request != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = u32::try_from(self.0.state.lock().bytes.len()).unwrap_or(u32::MAX);
        memory.write_value(argument, &count).map(|()| 0)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl File for PipeWriter {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.0.stat())
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let wanted = from
            .iter()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.len));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut state = self.0.state.lock();
        if !state.readers {
            return Err(Errno::EPIPE);
        }
        let room = CAPACITY.saturating_sub(state.bytes.len());
        if wanted > 0 && (room == 0 || (wanted <= ATOMIC && room < wanted)) {
            return Err(Errno::EAGAIN);
        }
        let bytes = memory.gather(from, room)?;
        state.bytes.extend(&bytes);
        drop(state);
        self.0.queue.wake_all();
        Ok(bytes.len() as u64)
    }

    fn readiness(&self) -> u32 {
        let state = self.0.state.lock();
        let room = CAPACITY.saturating_sub(state.bytes.len()) >= ATOMIC;
        let writable = if room { EPOLLOUT } else { 0 };
        writable | if state.readers { 0 } else { EPOLLERR }
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.0.queue)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
