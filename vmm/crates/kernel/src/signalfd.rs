//! signalfd(2): pending signals that are read instead of handled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::kernel::{Kernel, ThreadShared};
use crate::signal::unblockable;
use crate::task::current_thread;
use crate::wait::WaitQueue;

/// Bytes of `struct signalfd_siginfo`.
const RECORD: usize = 128;

/// A set of signals to read. As on Linux it gives those of the process and of whichever thread reads.
pub struct SignalFd {
    mask: AtomicU64,
    kernel: Weak<Kernel>,
    queue: Arc<WaitQueue>,
}

impl SignalFd {
    /// One that reads the signals in `mask`.
    #[must_use]
    pub fn new(mask: u64, kernel: &Arc<Kernel>) -> Arc<Self> {
        Arc::new(Self {
            mask: AtomicU64::new(mask & !unblockable()),
            kernel: Arc::downgrade(kernel),
            queue: Arc::clone(&kernel.signal_queue),
        })
    }

    /// The signals it reads.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.mask.load(Ordering::SeqCst)
    }

    /// Reads these signals from now on.
    pub fn set_mask(&self, mask: u64) {
        self.mask.store(mask & !unblockable(), Ordering::SeqCst);
        self.queue.wake_all();
    }

    fn take(&self, kernel: &Kernel, thread: Option<&ThreadShared>) -> Option<SigInfo> {
        let mask = self.mask.load(Ordering::SeqCst);
        kernel.take_signal(thread, mask)
    }
}

/// The record of a signal: which fields hold something depends on where it came from.
fn record(info: &SigInfo) -> Vec<u8> {
    let [first, second, ..] = info.words;
    let mut bytes = Vec::with_capacity(RECORD);
    bytes.extend_from_slice(&info.signo.to_ne_bytes());
    bytes.extend_from_slice(&info.errno.to_ne_bytes());
    bytes.extend_from_slice(&info.code.to_ne_bytes());
    if info.code == SI_TIMER {
        // pid, uid, fd; then the timer's number and overrun; then the value.
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&(first as u32).to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&((first >> 32) as u32).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
    } else {
        // pid and uid lie as in siginfo; fd, tid, band, overrun, trapno, status are 0.
        bytes.extend_from_slice(&first.to_ne_bytes());
        bytes.extend_from_slice(&[0; 24]);
    }
    bytes.extend_from_slice(&(second as u32).to_ne_bytes());
    bytes.extend_from_slice(&second.to_ne_bytes());
    bytes.resize(RECORD, 0);
    bytes
}

impl File for SignalFd {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0xe,
            ino: 4,
            nlink: 1,
            mode: 0o600,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let room = to.iter().fold(0u64, |sum, r| sum.saturating_add(r.len));
        let most = usize::try_from(room).unwrap_or(usize::MAX) / RECORD;
        if most == 0 {
            return Err(Errno::EINVAL);
        }
        let kernel = self.kernel.upgrade().ok_or(Errno::EAGAIN)?;
        let thread = current_thread();
        let mut bytes = Vec::new();
        for _ in 0..most {
            match self.take(&kernel, thread.as_deref()) {
                Some(info) => bytes.extend(record(&info)),
                None => break,
            }
        }
        if bytes.is_empty() {
            return Err(Errno::EAGAIN);
        }
        memory.scatter(to, &bytes).map(|count| count as u64)
    }

    fn readiness(&self) -> u32 {
        let Some(kernel) = self.kernel.upgrade() else {
            return 0;
        };
        let own = current_thread().map_or(0, |thread| thread.pending.lock().mask());
        let pending = own | kernel.actions.lock().pending.mask();
        if pending & self.mask.load(Ordering::SeqCst) != 0 {
            EPOLLIN
        } else {
            0
        }
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
