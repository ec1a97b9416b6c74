//! What the first answer of a snapshot's clone touches. Those that are brought back later have pages that it writes copied at once, and all of them
//! mapped before they are asked for, which costs a fraction of what each costs when the guest meets it.
//!
//! Two clones are looked at, and what both touched counts: one of them may have collected garbage or compiled something, and what is copied beforehand is each
//! later clone's own for good.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::controlling::unknown;
use crate::daemon::Daemon;
use crate::jobs::{Asker, Job};
use crate::refusal::{Code, Refusal};
use crate::reset::{Resetter, Seen};
use crate::snapshots::Snapshot;

/// Pages beyond which it is not a first answer's work any more.
const MOST_WRITTEN: u64 = 1024;
const MOST_READ: u64 = 4096;
/// Pieces that they lie in, each.
const MOST_RANGES: usize = 1024;

/// Pages of a guest's memory, counted from address 0: the first, and how many.
pub type Ranges = Vec<(u64, u64)>;

/// What a first answer touches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Touches {
    /// Pages that it only reads.
    read: Ranges,
    /// Pages that it writes.
    written: Ranges,
}

impl Touches {
    /// What both touched; written is what both wrote.
    fn common(&self, other: &Self) -> Self {
        let mut read = overlap(&self.read, &other.read);
        read.extend(overlap(&self.written, &other.read));
        read.extend(overlap(&self.read, &other.written));
        read.sort_unstable();
        Self {
            read,
            written: overlap(&self.written, &other.written),
        }
    }

    fn pages(&self) -> u64 {
        count(&self.read).saturating_add(count(&self.written))
    }

    /// What is worth doing beforehand: the monitor that told of it may have been its guest's.
    fn bounded(self) -> Self {
        let within = |ranges: &Ranges, most| count(ranges) <= most && ranges.len() <= MOST_RANGES;
        if within(&self.read, MOST_READ) && within(&self.written, MOST_WRITTEN) {
            self
        } else {
            Self::default()
        }
    }
}

fn count(ranges: &Ranges) -> u64 {
    ranges
        .iter()
        .fold(0u64, |sum, (_, count)| sum.saturating_add(*count))
}

/// Pages that lie in a range of each, which are in order. Of what is in no order some are missed.
fn overlap(one: &Ranges, other: &Ranges) -> Ranges {
    let end = |(start, count): (u64, u64)| start.saturating_add(count);
    let (mut ones, mut others) = (one.iter().copied(), other.iter().copied());
    let mut at = (ones.next(), others.next());
    let mut found = Ranges::new();
    while let (Some(a), Some(b)) = at {
        let (low, high) = (a.0.max(b.0), end(a).min(end(b)));
        if low < high {
            found.push((low, high.saturating_sub(low)));
        }
        if end(a) <= end(b) {
            at.0 = ones.next();
        } else {
            at.1 = others.next();
        }
    }
    found
}

/// What is known of a snapshot's first answers.
#[derive(Debug, Default)]
pub struct Lessons {
    /// Of the first that was looked at.
    first: Mutex<Option<Touches>>,
    learned: OnceLock<Touches>,
}

impl Lessons {
    /// Takes what one touched; whether that is enough.
    fn take(&self, touches: Touches) -> bool {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match first.take() {
            None if self.learned.get().is_none() => {
                *first = Some(touches);
                false
            }
            None => true,
            Some(before) => {
                // Looks that were under way at once agree to whoever was first.
                let _ = self.learned.set(before.common(&touches).bounded());
                true
            }
        }
    }

    /// What first answers touch, once that is known.
    pub fn learned(&self) -> Option<&Touches> {
        self.learned.get()
    }
}

/// A look at a sandbox that was brought back. Its monitor is asked for nothing else meanwhile.
pub struct LearnJob {
    pub key: u64,
    pub resetter: Resetter,
    pub snapshot: Arc<Snapshot>,
    pub asker: Asker,
}

/// One that is over.
pub struct LearnDone {
    pub key: u64,
    /// None when it does not answer, and so will answer nothing else.
    pub resetter: Option<Resetter>,
    /// How many pages that are, and whether another one is to be looked at.
    pub outcome: Result<(u64, bool), Refusal>,
    pub asker: Asker,
}

impl LearnJob {
    /// Looks, and notes what it finds with the snapshot.
    pub fn run(mut self) -> LearnDone {
        let refused = |why: String| {
            Refusal::new(
                Code::SetupFailed,
                format!("The sandbox's pages cannot be looked at: {why}."),
                "See sandboxd's log.",
            )
        };
        let (resetter, outcome) = match self.resetter.look() {
            Ok(Seen {
                ok: true, touches, ..
            }) => {
                let pages = touches.pages();
                let enough = self.snapshot.lessons().take(touches.bounded());
                (Some(self.resetter), Ok((pages, !enough)))
            }
            Ok(Seen { reason, .. }) => (Some(self.resetter), Err(refused(reason))),
            Err(error) => (None, Err(refused(error.to_string()))),
        };
        LearnDone {
            key: self.key,
            resetter,
            outcome,
            asker: self.asker,
        }
    }
}

impl Daemon {
    /// `learn`: looks at a sandbox that has just given its first answer.
    pub(crate) fn learn(&mut self, asker: Asker, id: &str) -> Result<(), Refusal> {
        let key = self.sandboxes.key(id).ok_or_else(|| unknown(id))?;
        let entry = self.sandboxes.get_mut(key).ok_or_else(|| unknown(id))?;
        if entry.sandbox.is_none() || entry.killed || entry.exited {
            return Err(unknown(id));
        }
        let snapshot = entry
            .snapshot
            .clone()
            .ok_or_else(|| Refusal::bad("The sandbox was not brought back from a snapshot."))?;
        if snapshot.learned().is_some() {
            self.answer(asker, &json!({"ok": true, "pages": 0, "again": false}));
            return Ok(());
        }
        let busy = || Refusal::bad("The sandbox is being reset.");
        let resetter = entry.resetter.take().ok_or_else(busy)?;
        entry.jobs = entry.jobs.saturating_add(1);
        entry.learning = true;
        self.jobs.start_job(Job::Learn(LearnJob {
            key,
            resetter,
            snapshot,
            asker,
        }));
        Ok(())
    }

    pub(crate) fn learned(&mut self, done: LearnDone) {
        let LearnDone {
            key,
            resetter,
            outcome,
            asker,
        } = done;
        match outcome {
            Ok((pages, again)) => {
                self.answer(asker, &json!({"ok": true, "pages": pages, "again": again}));
            }
            Err(refusal) => self.answer(asker, &refusal),
        }
        let silent = resetter.is_none();
        let mut next = None;
        if let Some(entry) = self.sandboxes.get_mut(key) {
            entry.resetter = resetter;
            entry.learning = false;
            next = entry.reset_next.take();
        }
        if let Some((asker, reset)) = next
            && let Err(refusal) = self.reset(asker, &reset)
        {
            self.answer(asker, &refusal);
        }
        if silent {
            self.kill_now(key);
        }
        self.job_done(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_touched_counts_and_what_one_of_them_wrote_is_read() {
        let one = Touches {
            read: vec![(10, 10), (40, 1), (90, 5)],
            written: vec![(20, 10), (100, 2)],
        };
        let other = Touches {
            read: vec![(0, 15), (25, 3), (101, 9)],
            written: vec![(18, 4), (30, 20)],
        };
        let lessons = Lessons::default();
        assert!(!lessons.take(one.clone()));
        assert_eq!(lessons.learned(), None);
        assert!(lessons.take(other.clone()));
        let both = Touches {
            read: vec![(10, 5), (18, 2), (25, 3), (40, 1), (101, 1)],
            written: vec![(20, 2)],
        };
        assert_eq!(lessons.learned(), Some(&both));
        // A third changes nothing, and the same twice is itself.
        assert!(lessons.take(Touches::default()));
        assert_eq!(lessons.learned(), Some(&both));
        assert_eq!(one.common(&one), one);
        assert_eq!(one.common(&other), other.common(&one));
    }

    #[test]
    fn ranges_of_a_monitor_that_lies_give_nothing_that_it_did_not_touch() {
        let lies: Ranges = vec![(u64::MAX, u64::MAX), (7, 0), (5, u64::MAX), (3, 1)];
        let honest: Ranges = vec![(4, 4), (20, 2)];
        let within = |(start, count): &(u64, u64)| {
            let end = start.saturating_add(*count);
            honest
                .iter()
                .any(|(low, pages)| *low <= *start && end <= low.saturating_add(*pages))
        };
        assert!(overlap(&lies, &honest).iter().all(within));
        assert!(overlap(&honest, &lies).iter().all(within));
    }

    #[test]
    fn what_is_too_much_is_not_done_beforehand() {
        let touches = |read: u64, written: u64| Touches {
            read: vec![(7, read)],
            written: vec![(1 << 40, written)],
        };
        let some = touches(MOST_READ, MOST_WRITTEN);
        assert_eq!(some.clone().bounded(), some);
        for much in [
            touches(MOST_READ + 1, 1),
            touches(1, MOST_WRITTEN + 1),
            touches(u64::MAX, u64::MAX),
            Touches {
                read: vec![(1, 1); MOST_RANGES + 1],
                written: Ranges::new(),
            },
        ] {
            assert_eq!(much.bounded(), Touches::default());
        }
    }
}
