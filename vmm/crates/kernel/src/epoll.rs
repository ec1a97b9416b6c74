//! epoll(7).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vmm_abi::*;

use vmm_snapshot::EpollEntry;

use crate::file::{File, OpenFile};
use crate::inside::Board;
use crate::stream::HostStream;
use crate::syscalls::with_bands;
use crate::wait::{Registration, WaitQueue, Wake};

/// Events that are reported whether asked for or not.
const ALWAYS: u32 = EPOLLERR | EPOLLHUP;
/// Bits of an entry that are modes, not events.
const MODES: u32 = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | (1 << 29);

/// Told by a watched file: notes that something changed and wakes who waits for the set.
struct Changed {
    flag: AtomicBool,
    set: Arc<WaitQueue>,
    board: Board,
}

impl Wake for Changed {
    fn wake(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.board.disturb();
        self.set.wake_all();
    }
}

/// Entries of all sets together (fs.epoll.max_user_watches of Linux). A process has one guest.
const MAX_ENTRIES: usize = 131_072;
static ENTRIES: AtomicUsize = AtomicUsize::new(0);

/// One of [`MAX_ENTRIES`], given back when it is dropped.
struct Counted;

impl Counted {
    fn new() -> Result<Self, Errno> {
        let add = |now: usize| now.checked_add(1).filter(|sum| *sum <= MAX_ENTRIES);
        ENTRIES
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map(|_| Self)
            .map_err(|_| Errno::ENOSPC)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ENTRIES.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Entry {
    open: Weak<OpenFile>,
    event: EpollEvent,
    changed: Arc<Changed>,
    /// Set once EPOLLONESHOT has reported.
    disabled: bool,
    _registration: Option<Registration>,
    _counted: Counted,
}

/// A descriptor and which description it stood for.
type Key = (i32, usize);

fn key(fd: i32, open: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(open) as usize)
}

fn as_set(open: &OpenFile) -> Option<&Epoll> {
    open.file.as_any().downcast_ref()
}

/// Held while sets are put into sets, so that no two threads close a circle together.
static NESTING: Mutex<()> = Mutex::new(());
/// Most links in a chain of sets (EP_MAX_NESTS of Linux).
const MAX_NESTS: usize = 4;
/// What may be asked for together with EPOLLEXCLUSIVE (epoll_ctl(2)), and EPOLLWAKEUP.
const WITH_EXCLUSIVE: u32 =
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLET | EPOLLEXCLUSIVE | (1 << 29);

/// A set of watched files. An entry belongs to the description it was made for and goes with it,
/// also when its number is used again (epoll(7), questions and answers).
pub struct Epoll {
    board: Board,
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// Whom to ask first next time, so that each has its turn when few are asked for.
    turn: Mutex<Key>,
    queue: Arc<WaitQueue>,
    /// Links in the longest chain of sets down to this one.
    level: AtomicUsize,
}

/// Events that hold, and whether that is known to be all until the board is told of more: but for the inlet nothing else is ready.
pub struct Taken {
    pub events: Vec<EpollEvent>,
    pub is_calm: bool,
}

impl Epoll {
    /// A set without entries.
    #[must_use]
    pub fn new(board: Board) -> Self {
        Self {
            board,
            entries: Mutex::default(),
            turn: Mutex::default(),
            queue: Arc::default(),
            level: AtomicUsize::new(0),
        }
    }

    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    /// EEXIST, EPERM for files that cannot be waited for, EINVAL, ELOOP for sets that hold each other,
    /// ENOSPC when all sets together hold too much.
    pub fn add(&self, fd: i32, open: &Arc<OpenFile>, event: EpollEvent) -> Result<(), Errno> {
        let nested = as_set(open);
        let exclusive = event.events & EPOLLEXCLUSIVE != 0;
        if exclusive && (nested.is_some() || event.events & !WITH_EXCLUSIVE != 0) {
            return Err(Errno::EINVAL);
        }
        let _nesting = nested.map(|_| NESTING.lock());
        if let Some(nested) = nested {
            let level = self.level.load(Ordering::Relaxed).saturating_add(1);
            let too_deep = level.saturating_add(nested.depth()) > MAX_NESTS;
            if std::ptr::eq(nested, self) || too_deep || nested.reaches(self, MAX_NESTS) {
                return Err(Errno::ELOOP);
            }
        }
        let queue = open.file.queue().ok_or(Errno::EPERM)?;
        if nested.is_some() || open.file.as_any().is::<HostStream>() {
            // Who sleeps without a host thread gets one now: the reactor, which is about to have something to tell, could start none.
            self.queue.wake_all();
        }
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.open.strong_count() > 0);
        let key = key(fd, open);
        if entries.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let counted = Counted::new()?;
        let changed = Arc::new(Changed {
            flag: AtomicBool::new(true),
            set: Arc::clone(&self.queue),
            board: self.board.clone(),
        });
        let registration = queue.register(Arc::clone(&changed) as Arc<dyn Wake>);
        let open = Arc::downgrade(open);
        entries.insert(
            key,
            Entry {
                open,
                event,
                changed,
                disabled: false,
                _registration: Some(registration),
                _counted: counted,
            },
        );
        drop(entries);
        if let Some(nested) = nested {
            nested.sink(self.level.load(Ordering::Relaxed).saturating_add(1));
        }
        self.board.disturb();
        self.queue.wake_all();
        Ok(())
    }

    /// Links to the lowest set below this one. What calls itself here, and where sets wake each other or look at each other, is bounded
    /// because a chain is.
    fn depth(&self) -> usize {
        let below = self.sets_below();
        let depths = below
            .iter()
            .filter_map(|open| as_set(open).map(Self::depth));
        depths.max().map_or(0, |depth| depth.saturating_add(1))
    }

    /// Says that so many links lead down to this set. It stays so when they are removed: what is refused then, is refused too often.
    fn sink(&self, level: usize) {
        self.level.fetch_max(level, Ordering::Relaxed);
        for open in self.sets_below() {
            if let Some(set) = as_set(&open) {
                set.sink(level.saturating_add(1));
            }
        }
    }

    fn sets_below(&self) -> Vec<Arc<OpenFile>> {
        let entries = self.entries.lock();
        let files = entries.values().filter_map(|entry| entry.open.upgrade());
        // Nothing may be dropped for good while the lock is held.
        let mut files: Vec<_> = files.collect();
        drop(entries);
        files.retain(|open| as_set(open).is_some());
        files
    }

    /// Whether a set is among those below this one, or the chain is longer than `left`.
    fn reaches(&self, other: &Epoll, left: usize) -> bool {
        self.sets_below().iter().any(|open| {
            let Some(set) = as_set(open) else {
                return false;
            };
            let shorter = left.checked_sub(1);
            std::ptr::eq(set, other) || shorter.is_none_or(|left| set.reaches(other, left))
        })
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// ENOENT, EINVAL where EPOLLEXCLUSIVE is or was asked for.
    pub fn modify(&self, fd: i32, open: &Arc<OpenFile>, event: EpollEvent) -> Result<(), Errno> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&key(fd, open)).ok_or(Errno::ENOENT)?;
        let before = entry.event.events;
        if (before | event.events) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        entry.event = event;
        entry.disabled = false;
        entry.changed.flag.store(true, Ordering::SeqCst);
        drop(entries);
        self.board.disturb();
        self.queue.wake_all();
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: i32, open: &Arc<OpenFile>) -> Result<(), Errno> {
        let removed = self.entries.lock().remove(&key(fd, open));
        removed.map(|_| ()).ok_or(Errno::ENOENT)
    }

    /// Every watched file that is still open, with what is wanted of it; the description is left to the caller.
    pub fn watched(&self) -> Vec<(Arc<OpenFile>, EpollEntry)> {
        let entries = self.entries.lock();
        let watched = |((fd, _), entry): (&Key, &Entry)| {
            let state = EpollEntry {
                fd: *fd,
                description: 0,
                events: entry.event.events,
                data: entry.event.data,
                changed: entry.changed.flag.load(Ordering::SeqCst),
                disabled: entry.disabled,
            };
            Some((entry.open.upgrade()?, state))
        };
        entries.iter().filter_map(watched).collect()
    }

    /// Watches a file as it was watched before.
    ///
    /// # Errors
    /// As [`Epoll::add`].
    pub fn watch_again(&self, open: &Arc<OpenFile>, state: &EpollEntry) -> Result<(), Errno> {
        let event = EpollEvent {
            events: state.events,
            data: state.data,
        };
        self.add(state.fd, open, event)?;
        if let Some(entry) = self.entries.lock().get_mut(&key(state.fd, open)) {
            entry.disabled = state.disabled;
            entry.changed.flag.store(state.changed, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether nothing that it watches, also by sets below it, has its changes told by the reactor.
    pub fn is_guests_own(&self) -> bool {
        let entries = self.entries.lock();
        let files = entries.values().filter_map(|entry| entry.open.upgrade());
        // Nothing may be dropped for good while the lock is held.
        let files: Vec<_> = files.collect();
        drop(entries);
        files.iter().all(|open| match as_set(open) {
            Some(set) => set.is_guests_own(),
            None => !open.file.as_any().is::<HostStream>(),
        })
    }

    /// Takes up to `limit` events that hold now.
    pub fn take(&self, limit: usize) -> Taken {
        let mut is_calm = true;
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.open.strong_count() > 0);
        let mut found = Vec::new();
        let turn = *self.turn.lock();
        let mut keys: Vec<Key> = entries.range(turn..).map(|(key, _)| *key).collect();
        keys.extend(entries.range(..turn).map(|(key, _)| *key));
        for key in keys {
            let Some(entry) = entries.get_mut(&key).filter(|entry| !entry.disabled) else {
                continue;
            };
            if found.len() >= limit {
                *self.turn.lock() = key;
                is_calm = false;
                break;
            }
            let Some(open) = entry.open.upgrade() else {
                continue;
            };
            let wanted = entry.event.events;
            is_calm &= open.file.tells_changes(wanted);
            let edge = wanted & EPOLLET != 0;
            if edge && !entry.changed.flag.swap(false, Ordering::SeqCst) {
                continue;
            }
            let events = with_bands(open.file.readiness_of(wanted)) & ((wanted & !MODES) | ALWAYS);
            if events == 0 {
                continue;
            }
            is_calm &= open.file.is_inlet();
            entry.disabled = wanted & EPOLLONESHOT != 0;
            found.push(EpollEvent {
                events,
                data: entry.event.data,
            });
        }
        Taken {
            events: found,
            is_calm,
        }
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
                    .is_some_and(|open| with_bands(open.file.readiness_of(wanted)) & wanted != 0)
            });
        if ready { EPOLLIN } else { 0 }
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn arm(&self, _events: u32) {
        self.arm_all();
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
