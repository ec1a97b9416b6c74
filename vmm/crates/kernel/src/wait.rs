//! Waiting without a lost wake: a waiter registers first and looks at the condition afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock;

/// What is told when something may have become ready.
pub trait Wake: Send + Sync {
    /// Called by whoever changed the state, with no lock of the waiter held.
    fn wake(&self);
}

/// The parking place of one guest thread.
#[derive(Default)]
pub struct Parker {
    woken: AtomicBool,
    told: Mutex<Told>,
}

/// Who hears that it is woken.
#[derive(Default)]
enum Told {
    #[default]
    Nobody,
    Thread(Thread),
    /// No host thread runs it: this has one do so.
    Start(Start),
}

type Start = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Parker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parker({:?})", self.woken)
    }
}

impl Parker {
    /// Says that the calling host thread is the one to wake.
    pub fn adopt_this_thread(&self) {
        *self.told.lock() = Told::Thread(std::thread::current());
    }

    /// Has `start` called, once, by whoever wakes it first, or at once if somebody has since [`Parker::clear`]. It may be called with locks held that
    /// have to do with what is waited for, so it must not take any that the kernel has.
    pub fn start_when_woken(&self, start: impl FnOnce() + Send + 'static) {
        let mut told = self.told.lock();
        if self.woken.load(Ordering::SeqCst) {
            drop(told);
            start();
        } else {
            *told = Told::Start(Box::new(start));
        }
    }

    /// Forgets wakes so far; before a condition is looked at.
    pub fn clear(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Sleeps until woken or until the monotonic time `deadline_ns`; whether it was woken.
    pub fn park(&self, deadline_ns: Option<u64>) -> bool {
        loop {
            if self.woken.swap(false, Ordering::SeqCst) {
                return true;
            }
            match deadline_ns {
                None => std::thread::park(),
                Some(deadline) => {
                    let now = clock::monotonic_ns();
                    if now >= deadline {
                        return false;
                    }
                    std::thread::park_timeout(Duration::from_nanos(deadline.saturating_sub(now)));
                }
            }
        }
    }
}

impl Wake for Parker {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        let mut told = self.told.lock();
        match std::mem::take(&mut *told) {
            Told::Nobody => {}
            Told::Thread(thread) => {
                thread.unpark();
                *told = Told::Thread(thread);
            }
            Told::Start(start) => {
                drop(told);
                start();
            }
        }
    }
}

/// Everyone who waits for one thing.
#[derive(Default)]
pub struct WaitQueue {
    next: AtomicU64,
    waiters: Mutex<Vec<(u64, Arc<dyn Wake>)>>,
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WaitQueue({})", self.waiters.lock().len())
    }
}

impl WaitQueue {
    /// Adds a waiter for as long as the answer lives.
    #[must_use]
    pub fn register(self: &Arc<Self>, waiter: Arc<dyn Wake>) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiters.lock().push((id, waiter));
        Registration {
            queue: Arc::clone(self),
            id,
        }
    }

    /// Wakes all; they look at the condition themselves.
    pub fn wake_all(&self) {
        let waiters: Vec<_> = self
            .waiters
            .lock()
            .iter()
            .map(|(_, w)| Arc::clone(w))
            .collect();
        for waiter in waiters {
            waiter.wake();
        }
    }
}

/// A place in a queue, left on drop.
#[derive(Debug)]
pub struct Registration {
    queue: Arc<WaitQueue>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.queue.waiters.lock().retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_between_look_and_park_is_not_lost() {
        let parker = Arc::new(Parker::default());
        parker.adopt_this_thread();
        let queue = Arc::new(WaitQueue::default());
        let registration = queue.register(Arc::clone(&parker) as Arc<dyn Wake>);
        parker.clear();
        queue.wake_all();
        assert!(parker.park(None));
        drop(registration);
        queue.wake_all();
        assert!(!parker.park(Some(clock::monotonic_ns())));
    }

    #[test]
    fn what_nobody_runs_is_started_once_by_who_wakes_it() {
        let parker = Parker::default();
        let started = Arc::new(AtomicU64::new(0));
        let start = || {
            let started = Arc::clone(&started);
            move || {
                started.fetch_add(1, Ordering::SeqCst);
            }
        };
        parker.start_when_woken(start());
        assert_eq!(started.load(Ordering::SeqCst), 0);
        for _ in 0..2 {
            parker.wake();
            assert_eq!(started.load(Ordering::SeqCst), 1);
        }
        // A wake that came first is not lost.
        parker.start_when_woken(start());
        assert_eq!(started.load(Ordering::SeqCst), 2);
        parker.clear();
        parker.start_when_woken(start());
        assert_eq!(started.load(Ordering::SeqCst), 2);
    }
}
