//! Connected Unix stream sockets inside the guest (socketpair(2)): a pipe each way.

use std::sync::Arc;

use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::pipe::{PipeReader, PipeWriter, pipe_told_by};
use crate::wait::WaitQueue;

/// One end.
pub struct PairEnd {
    reader: Arc<PipeReader>,
    writer: Arc<PipeWriter>,
    /// Told of changes of both pipes, so that one queue tells all of an end.
    queue: Arc<WaitQueue>,
}

/// Two ends that are connected; `ino` and the next number are what fstat shows of them.
#[must_use]
pub fn socket_pair(ino: u64) -> (Arc<PairEnd>, Arc<PairEnd>) {
    let queue: Arc<WaitQueue> = Arc::default();
    let there = pipe_told_by(Arc::clone(&queue), ino);
    let back = pipe_told_by(Arc::clone(&queue), ino.saturating_add(1));
    let end = |reader, writer| {
        Arc::new(PairEnd {
            reader,
            writer,
            queue: Arc::clone(&queue),
        })
    };
    (end(back.0, there.1), end(there.0, back.1))
}

impl PairEnd {
    /// shutdown(2)
    ///
    /// # Errors
    /// EINVAL for a direction that is none.
    pub fn shutdown(&self, how: i32) -> Result<(), Errno> {
        let (read, write) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        if read {
            self.reader.leave();
        }
        if write {
            self.writer.leave();
        }
        Ok(())
    }
}

impl File for PairEnd {
    fn stat(&self) -> Result<Stat, Errno> {
        let stat = self.reader.stat()?;
        Ok(Stat {
            mode: S_IFSOCK | 0o777,
            ..stat
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], offset: u64) -> Result<u64, Errno> {
        self.reader.read(memory, to, offset)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], offset: u64) -> Result<u64, Errno> {
        self.writer.write(memory, from, offset)
    }

    fn readiness(&self) -> u32 {
        let read = self.reader.readiness();
        let write = self.writer.readiness();
        let (peer_wrote_all, peer_reads_no_more) = (read & EPOLLHUP != 0, write & EPOLLERR != 0);
        let mut ready = (read & EPOLLIN) | (write & EPOLLOUT);
        if peer_wrote_all {
            // End of file can be read.
            ready |= EPOLLIN | EPOLLRDHUP;
        }
        if peer_reads_no_more {
            ready |= EPOLLOUT;
        }
        if peer_wrote_all && peer_reads_no_more {
            ready |= EPOLLHUP;
        }
        ready
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn ioctl(&self, memory: &AddressSpace, request: u32, argument: u64) -> Result<u64, Errno> {
        self.reader.ioctl(memory, request, argument)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
