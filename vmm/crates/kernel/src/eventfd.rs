//! eventfd(2).

use std::sync::Arc;

use parking_lot::Mutex;
use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::wait::WaitQueue;

/// A counter that can be waited for.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: Arc<WaitQueue>,
}

impl EventFd {
    /// A counter with a first value; `semaphore` makes a read take 1 instead of all.
    #[must_use]
    pub fn new(count: u64, semaphore: bool) -> Arc<Self> {
        Arc::new(Self {
            count: Mutex::new(count),
            semaphore,
            queue: Arc::new(WaitQueue::default()),
        })
    }

    /// Its value, and whether a read takes 1 instead of all.
    #[must_use]
    pub fn state(&self) -> (u64, bool) {
        (*self.count.lock(), self.semaphore)
    }
}

fn has_room_for_word(list: &[Iovec]) -> bool {
    list.iter()
        .fold(0u64, |sum, entry| sum.saturating_add(entry.len))
        >= 8
}

impl File for EventFd {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0xe,
            ino: 1,
            nlink: 1,
            mode: 0o600,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        if !has_room_for_word(to) {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = if self.semaphore { 1 } else { *count };
        memory.scatter(to, &taken.to_ne_bytes())?;
        *count = count.saturating_sub(taken);
        drop(count);
        self.queue.wake_all();
        Ok(8)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        if !has_room_for_word(from) {
            return Err(Errno::EINVAL);
        }
        let bytes = memory.gather(from, 8)?;
        let added = u64::from_ne_bytes(bytes.try_into().map_err(|_| Errno::EFAULT)?);
        if added == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        *count = count
            .checked_add(added)
            .filter(|sum| *sum < u64::MAX)
            .ok_or(Errno::EAGAIN)?;
        drop(count);
        self.queue.wake_all();
        Ok(8)
    }

    fn readiness(&self) -> u32 {
        let count = *self.count.lock();
        let readable = if count > 0 { EPOLLIN } else { 0 };
        readable
            | if count < u64::MAX.wrapping_sub(1) {
                EPOLLOUT
            } else {
                0
            }
    }

    fn tells_changes(&self, _events: u32) -> bool {
        true
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
