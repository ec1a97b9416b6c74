//! Standing still: every thread stops at its next boundary, in guest code or in a system call that waits,
//! tells where it is, and never goes on. What it waits for is then asked again by whoever brings it back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use vmm_abi::Errno;
use vmm_snapshot::ThreadState;

use crate::futex::Waiter;
use crate::kernel::Kernel;

/// Why not all threads stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StillError {
    /// The process has ended instead.
    Ended,
    /// A thread's floating-point state cannot be had.
    State(Errno),
}

impl fmt::Display for StillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the program ended"),
            Self::State(errno) => write!(f, "the state of a thread cannot be read: {errno}"),
        }
    }
}

impl std::error::Error for StillError {}

/// Where a thread stands.
pub(crate) struct Standing {
    pub state: ThreadState,
    /// Its place in the queue of a futex.
    pub waiter: Option<Arc<Waiter>>,
}

impl Standing {
    /// The state once all stand. A wake that chose this thread is not lost: whoever woke it counts on it, and the futex need not have changed.
    fn settled(self) -> ThreadState {
        let mut state = self.state;
        if self.waiter.is_some_and(|waiter| waiter.woken()) {
            state.call = None;
            state.registers.rax = 0;
        }
        state
    }
}

/// Where threads stand.
#[derive(Default)]
pub(crate) struct Freezer {
    wanted: AtomicBool,
    standing: Mutex<BTreeMap<i32, Result<Standing, Errno>>>,
    changed: Condvar,
}

impl Freezer {
    /// Whether threads are to stand still.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Tells where the calling thread is; never returns.
    pub fn stand(&self, tid: i32, state: Result<Standing, Errno>) -> ! {
        self.standing.lock().insert(tid, state);
        self.changed.notify_all();
        loop {
            std::thread::park();
        }
    }

    /// Tells whoever waits that a thread has ended instead.
    pub fn look_again(&self) {
        if self.is_wanted() {
            // With the lock, so that the one who waits is not between looking and waiting.
            drop(self.standing.lock());
            self.changed.notify_all();
        }
    }
}

impl Kernel {
    /// Makes all threads stand still for good, and answers where they are, by id.
    ///
    /// # Errors
    /// [`StillError`].
    pub fn stand_still(&self) -> Result<Vec<ThreadState>, StillError> {
        self.freezer.wanted.store(true, Ordering::SeqCst);
        for thread in self.threads() {
            thread.interrupt();
        }
        let mut standing = self.freezer.standing.lock();
        loop {
            if self.exit_status().is_some() {
                return Err(StillError::Ended);
            }
            let threads = self.threads();
            if threads
                .iter()
                .all(|thread| standing.contains_key(&thread.tid))
            {
                let states = std::mem::take(&mut *standing).into_values();
                return states
                    .map(|state| state.map(Standing::settled).map_err(StillError::State))
                    .collect();
            }
            self.freezer.changed.wait(&mut standing);
        }
    }
}
