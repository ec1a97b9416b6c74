//! Futexes (futex(2)): guest threads that wait for a word of guest memory to change.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use vmm_abi::Errno;
use vmm_memory::AddressSpace;

use crate::inside::Board;
use crate::wait::{Parker, Wake};

/// Wakes a waiter whatever bits it waits for.
pub const ANY: u32 = u32::MAX;

/// One thread in a futex queue.
#[derive(Debug)]
pub struct Waiter {
    parker: Arc<Parker>,
    bits: u32,
    woken: AtomicBool,
}

impl Waiter {
    /// Whether a wake chose this waiter; it has then left the queue.
    #[must_use]
    pub fn woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

/// All waiters of a process, by address.
#[derive(Debug, Default)]
pub struct FutexTable {
    queues: Mutex<Queues>,
    /// Told of each waiter before it looks at its word, and when it is out of its queue.
    board: Board,
}

type Queues = HashMap<u64, VecDeque<Arc<Waiter>>>;

fn word(memory: &AddressSpace, address: u64) -> Result<u32, Errno> {
    if address % 4 != 0 {
        return Err(Errno::EINVAL);
    }
    memory.read_value(address)
}

impl FutexTable {
    pub(crate) fn new(board: Board) -> Self {
        Self {
            board,
            ..Self::default()
        }
    }

    /// Queues a waiter when the word still holds `expected`. The lock makes this one step to all
    /// wakes, which come after the store they tell of.
    ///
    /// # Errors
    /// EAGAIN when the word has another value, EFAULT, EINVAL for an unaligned address.
    pub fn enqueue(
        &self,
        memory: &AddressSpace,
        address: u64,
        expected: u32,
        bits: u32,
        parker: &Arc<Parker>,
    ) -> Result<Arc<Waiter>, Errno> {
        let mut queues = self.queues.lock();
        self.board.waits(address);
        let found = word(memory, address);
        if found != Ok(expected) {
            self.board.waited(address, 1);
            return Err(found.err().unwrap_or(Errno::EAGAIN));
        }
        let woken = AtomicBool::new(false);
        let waiter = Arc::new(Waiter {
            parker: Arc::clone(parker),
            bits,
            woken,
        });
        queues
            .entry(address)
            .or_default()
            .push_back(Arc::clone(&waiter));
        Ok(waiter)
    }

    /// Takes a waiter out again (its time is over, or a signal came); false when a wake was faster.
    /// It may have been moved to another address meanwhile.
    pub fn dequeue(&self, waiter: &Arc<Waiter>) -> bool {
        let mut queues = self.queues.lock();
        if waiter.woken() {
            return false;
        }
        queues.retain(|address, queue| {
            let before = queue.len();
            queue.retain(|other| !Arc::ptr_eq(other, waiter));
            let gone = before.saturating_sub(queue.len());
            self.board.waited(*address, gone as u64);
            !queue.is_empty()
        });
        true
    }

    /// Wakes at most `count` waiters that share a bit with `bits`; answers how many.
    pub fn wake(&self, address: u64, count: u64, bits: u32) -> u64 {
        self.wake_locked(&mut self.queues.lock(), address, count, bits)
    }

    fn wake_locked(&self, queues: &mut Queues, address: u64, count: u64, bits: u32) -> u64 {
        let Some(queue) = queues.get_mut(&address) else {
            return 0;
        };
        let mut woken = 0u64;
        queue.retain(|waiter| {
            if woken >= count || waiter.bits & bits == 0 {
                return true;
            }
            woken = woken.saturating_add(1);
            waiter.woken.store(true, Ordering::SeqCst);
            waiter.parker.wake();
            false
        });
        if queue.is_empty() {
            queues.remove(&address);
        }
        self.board.waited(address, woken);
        woken
    }

    /// FUTEX_CMP_REQUEUE (and FUTEX_REQUEUE with no `expected`): wakes `wake` waiters and moves up
    /// to `requeue` others; answers how many of both.
    ///
    /// # Errors
    /// EAGAIN when the word has another value, EFAULT, EINVAL.
    pub fn requeue(
        &self,
        memory: &AddressSpace,
        from: u64,
        to: u64,
        wake: u64,
        requeue: u64,
        expected: Option<u32>,
    ) -> Result<u64, Errno> {
        let mut queues = self.queues.lock();
        let value = word(memory, from)?;
        word(memory, to)?;
        if expected.is_some_and(|expected| expected != value) {
            return Err(Errno::EAGAIN);
        }
        let woken = self.wake_locked(&mut queues, from, wake, ANY);
        if from == to {
            return Ok(woken);
        }
        let mut moved = VecDeque::new();
        if let Some(queue) = queues.get_mut(&from) {
            while (moved.len() as u64) < requeue
                && let Some(waiter) = queue.pop_front()
            {
                self.board.waits(to);
                self.board.waited(from, 1);
                moved.push_back(waiter);
            }
            if queue.is_empty() {
                queues.remove(&from);
            }
        }
        let count = woken.saturating_add(moved.len() as u64);
        if !moved.is_empty() {
            queues.entry(to).or_default().append(&mut moved);
        }
        Ok(count)
    }

    /// How many waiters there are in all.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.lock().values().map(VecDeque::len).sum()
    }
}
