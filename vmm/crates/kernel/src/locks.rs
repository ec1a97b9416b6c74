//! Locks of open file descriptions: whole files (flock(2)) and ranges (F_OFD_SETLK of fcntl(2)). A description keeps its
//! locks until it is closed for the last time.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use vmm_abi::Errno;

use crate::wait::WaitQueue;

/// Most locks of a guest together.
const MAX_LOCKS: usize = 4096;

/// Device and inode of a locked file.
pub type FileId = (u64, u64);

/// How a range is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u64,
    /// The last byte; `u64::MAX` for all that may follow.
    pub last: u64,
    pub exclusive: bool,
}

impl Range {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn excludes(&self, other: &Self) -> bool {
        self.meets(other) && (self.exclusive || other.exclusive)
    }
}

#[derive(Debug, Default)]
struct Held {
    /// Description and whether it excludes others.
    whole: BTreeMap<u64, bool>,
    ranges: Vec<(u64, Range)>,
}

impl Held {
    fn count(&self) -> usize {
        self.whole.len().saturating_add(self.ranges.len())
    }

    fn cut(&mut self, owner: u64, hole: Range) {
        let mut kept = Vec::with_capacity(self.ranges.len());
        for (holder, range) in self.ranges.drain(..) {
            if holder != owner || !range.meets(&hole) {
                kept.push((holder, range));
                continue;
            }
            if range.first < hole.first {
                let last = hole.first.saturating_sub(1);
                kept.push((holder, Range { last, ..range }));
            }
            if range.last > hole.last {
                let first = hole.last.saturating_add(1);
                kept.push((holder, Range { first, ..range }));
            }
        }
        self.ranges = kept;
    }
}

/// All locks of a guest.
#[derive(Debug, Default)]
pub struct Locks {
    files: Mutex<BTreeMap<FileId, Held>>,
    /// Told when a lock was given up.
    pub queue: Arc<WaitQueue>,
}

impl Locks {
    /// Locks a whole file for a description, `None` unlocks it. As on Linux, what it held before is given up first.
    ///
    /// # Errors
    /// EAGAIN while another holds it, ENOLCK when there are too many.
    pub fn lock_whole(&self, file: FileId, owner: u64, lock: Option<bool>) -> Result<(), Errno> {
        let mut files = self.files.lock();
        let total: usize = files.values().map(Held::count).sum();
        let held = files.entry(file).or_default();
        let before = held.whole.get(&owner).copied();
        if before == lock {
            return Ok(());
        }
        held.whole.remove(&owner);
        let result = match lock {
            None => Ok(()),
            Some(exclusive) => {
                if held.whole.values().any(|other| exclusive || *other) {
                    Err(Errno::EAGAIN)
                } else if total >= MAX_LOCKS {
                    Err(Errno::ENOLCK)
                } else {
                    held.whole.insert(owner, exclusive);
                    Ok(())
                }
            }
        };
        self.settle(&mut files, file);
        drop(files);
        if before.is_some() {
            self.queue.wake_all();
        }
        result
    }

    /// Locks a range for a description.
    ///
    /// # Errors
    /// EAGAIN while another holds part of it, ENOLCK when there are too many.
    pub fn lock_range(&self, file: FileId, owner: u64, range: Range) -> Result<(), Errno> {
        let mut files = self.files.lock();
        let total: usize = files.values().map(Held::count).sum();
        let held = files.entry(file).or_default();
        let taken = |(holder, other): &(u64, Range)| *holder != owner && other.excludes(&range);
        let result = if held.ranges.iter().any(taken) {
            Err(Errno::EAGAIN)
        } else if total >= MAX_LOCKS {
            Err(Errno::ENOLCK)
        } else {
            held.cut(owner, range);
            held.ranges.push((owner, range));
            Ok(())
        };
        self.settle(&mut files, file);
        drop(files);
        if result.is_ok() {
            // A shared lock in the place of an exclusive one lets others in. What was refused changed nothing: who waits would wake himself for ever.
            self.queue.wake_all();
        }
        result
    }

    /// Unlocks a range.
    ///
    /// # Errors
    /// ENOLCK when the rest would be too many.
    pub fn unlock_range(&self, file: FileId, owner: u64, range: Range) -> Result<(), Errno> {
        let mut files = self.files.lock();
        let total: usize = files.values().map(Held::count).sum();
        if total >= MAX_LOCKS {
            return Err(Errno::ENOLCK);
        }
        if let Some(held) = files.get_mut(&file) {
            held.cut(owner, range);
        }
        self.settle(&mut files, file);
        drop(files);
        self.queue.wake_all();
        Ok(())
    }

    /// What keeps a range from being locked by `owner`; `None` is the process itself.
    #[must_use]
    pub fn in_the_way(&self, file: FileId, owner: Option<u64>, range: Range) -> Option<Range> {
        let files = self.files.lock();
        let taken =
            |(holder, other): &&(u64, Range)| Some(*holder) != owner && other.excludes(&range);
        let held = files.get(&file)?;
        held.ranges.iter().find(taken).map(|(_, other)| *other)
    }

    /// What a description holds: on its whole file, and ranges of it.
    pub fn held_by(&self, owner: u64) -> (Option<bool>, Vec<Range>) {
        let files = self.files.lock();
        let whole = files.values().find_map(|held| held.whole.get(&owner));
        let ranges = files.values().flat_map(|held| &held.ranges);
        let own = ranges.filter(|(holder, _)| *holder == owner);
        (whole.copied(), own.map(|(_, range)| *range).collect())
    }

    /// Gives up all that a description holds.
    pub fn release(&self, owner: u64) {
        let mut files = self.files.lock();
        files.retain(|_, held| {
            held.whole.remove(&owner);
            held.ranges.retain(|(holder, _)| *holder != owner);
            held.count() > 0
        });
        drop(files);
        self.queue.wake_all();
    }

    fn settle(&self, files: &mut BTreeMap<FileId, Held>, file: FileId) {
        if files.get(&file).is_some_and(|held| held.count() == 0) {
            files.remove(&file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::wait::Wake;

    const FILE: FileId = (1, 2);

    fn range(first: u64, last: u64, exclusive: bool) -> Range {
        Range {
            first,
            last,
            exclusive,
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_is_woken_by_what_lets_others_in_and_not_by_asking_in_vain() {
        let locks = Locks::default();
        let waiter = Arc::new(Woken::default());
        let _waits = locks.queue.register(Arc::clone(&waiter) as Arc<dyn Wake>);
        let woken = || waiter.0.swap(0, Ordering::SeqCst);
        locks.lock_range(FILE, 1, range(0, 9, true)).unwrap();
        locks.lock_whole(FILE, 1, Some(true)).unwrap();
        woken();
        assert!(locks.lock_range(FILE, 2, range(5, 5, false)).is_err());
        assert!(locks.lock_whole(FILE, 2, Some(false)).is_err());
        assert_eq!(woken(), 0);
        locks.lock_range(FILE, 1, range(5, 9, false)).unwrap();
        assert_eq!(woken(), 1);
        locks.unlock_range(FILE, 1, range(0, 4, true)).unwrap();
        assert_eq!(woken(), 1);
        locks.lock_whole(FILE, 1, None).unwrap();
        assert_eq!(woken(), 1);
    }

    #[test]
    fn a_hole_leaves_both_ends_locked() {
        let locks = Locks::default();
        locks.lock_range(FILE, 1, range(0, u64::MAX, true)).unwrap();
        locks.unlock_range(FILE, 1, range(10, 19, false)).unwrap();
        assert_eq!(locks.lock_range(FILE, 2, range(10, 19, true)), Ok(()));
        for taken in [range(9, 9, false), range(20, 20, false)] {
            assert_eq!(locks.lock_range(FILE, 2, taken), Err(Errno::EAGAIN));
        }
        locks.release(1);
        assert_eq!(locks.lock_range(FILE, 2, range(0, 100, true)), Ok(()));
    }

    #[test]
    fn there_is_a_bound_on_locks() {
        let locks = Locks::default();
        let many = (0..MAX_LOCKS as u64).map(|n| range(2 * n, 2 * n, false));
        for one in many {
            locks.lock_range(FILE, 1, one).unwrap();
        }
        assert_eq!(locks.lock_whole(FILE, 2, Some(true)), Err(Errno::ENOLCK));
        locks.release(1);
        assert_eq!(locks.lock_whole(FILE, 2, Some(true)), Ok(()));
    }
}
