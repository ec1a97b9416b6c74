//! epoll(7).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vmm_abi::*;

use crate::file::{File, OpenFile};
use crate::wait::{Registration, WaitQueue, Wake};

/// Events that are reported whether asked for or not.
const ALWAYS: u32 = EPOLLERR | EPOLLHUP;
/// Bits of an entry that are modes, not events.
const MODES: u32 = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | (1 << 29);

/// Told by a watched file: notes that something changed and wakes who waits for the set.
struct Changed {
    flag: AtomicBool,
    set: Arc<WaitQueue>,
}

impl Wake for Changed {
    fn wake(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.set.wake_all();
    }
}

struct Entry {
    open: Weak<OpenFile>,
    event: EpollEvent,
    changed: Arc<Changed>,
    /// Set once EPOLLONESHOT has reported.
    disabled: bool,
    _registration: Option<Registration>,
}

/// A set of watched files. An entry belongs to the description it was made for and goes with it,
/// also when its number is used again (epoll(7), questions and answers).
#[derive(Default)]
pub struct Epoll {
    entries: Mutex<BTreeMap<i32, Entry>>,
    queue: Arc<WaitQueue>,
}

impl Epoll {
    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    /// EEXIST, EPERM for files that cannot be waited for, EINVAL for another epoll set.
    pub fn add(&self, fd: i32, open: &Arc<OpenFile>, event: EpollEvent) -> Result<(), Errno> {
        if open.file.as_any().is::<Epoll>() {
            return Err(Errno::EINVAL);
        }
        let queue = open.file.queue().ok_or(Errno::EPERM)?;
        let mut entries = self.entries.lock();
        if entries
            .get(&fd)
            .is_some_and(|entry| entry.open.upgrade().is_some())
        {
            return Err(Errno::EEXIST);
        }
        let changed = Arc::new(Changed {
            flag: AtomicBool::new(true),
            set: Arc::clone(&self.queue),
        });
        let registration = queue.register(Arc::clone(&changed) as Arc<dyn Wake>);
        let open = Arc::downgrade(open);
        entries.insert(
            fd,
            Entry {
                open,
                event,
                changed,
                disabled: false,
                _registration: Some(registration),
            },
        );
        drop(entries);
        self.queue.wake_all();
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// ENOENT.
    pub fn modify(&self, fd: i32, event: EpollEvent) -> Result<(), Errno> {
        let mut entries = self.entries.lock();
        let entry = entries
            .get_mut(&fd)
            .filter(|e| e.open.strong_count() > 0)
            .ok_or(Errno::ENOENT)?;
        entry.event = event;
        entry.disabled = false;
        entry.changed.flag.store(true, Ordering::SeqCst);
        drop(entries);
        self.queue.wake_all();
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: i32) -> Result<(), Errno> {
        let removed = self.entries.lock().remove(&fd);
        removed
            .filter(|entry| entry.open.strong_count() > 0)
            .map(|_| ())
            .ok_or(Errno::ENOENT)
    }

    /// Takes up to `limit` events that hold now.
    pub fn take(&self, limit: usize) -> Vec<EpollEvent> {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.open.strong_count() > 0);
        let mut found = Vec::new();
        for entry in entries.values_mut().filter(|entry| !entry.disabled) {
            if found.len() >= limit {
                break;
            }
            let Some(open) = entry.open.upgrade() else {
                continue;
            };
            let wanted = entry.event.events;
            let edge = wanted & EPOLLET != 0;
            if edge && !entry.changed.flag.swap(false, Ordering::SeqCst) {
                continue;
            }
            let events = open.file.readiness() & ((wanted & !MODES) | ALWAYS);
            if events == 0 {
                continue;
            }
            entry.disabled = wanted & EPOLLONESHOT != 0;
            found.push(EpollEvent {
                events,
                data: entry.event.data,
            });
        }
        found
    }

    /// Asks all watched files to tell changes.
    pub fn arm_all(&self) {
        for entry in self.entries.lock().values().filter(|entry| !entry.disabled) {
            if let Some(open) = entry.open.upgrade() {
                open.file.arm(entry.event.events);
            }
        }
    }
}

impl File for Epoll {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0xe,
            ino: 2,
            nlink: 1,
            mode: 0o600,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn readiness(&self) -> u32 {
        let entries = self.entries.lock();
        let ready = entries
            .values()
            .filter(|entry| !entry.disabled)
            .any(|entry| {
                let wanted = (entry.event.events & !MODES) | ALWAYS;
                entry
                    .open
                    .upgrade()
                    .is_some_and(|open| open.file.readiness() & wanted != 0)
            });
        if ready { EPOLLIN } else { 0 }
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
