//! What the first answer of a snapshot's clone touches. Those that are brought back later have pages that it writes copied at once, and all of them
//! mapped before they are asked for, which costs a fraction of what each costs when the guest meets it.

use std::sync::Arc;

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
    /// How many pages that are.
    pub outcome: Result<u64, Refusal>,
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
                self.snapshot.learn(touches.bounded());
                (Some(self.resetter), Ok(pages))
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
            self.answer(asker, &json!({"ok": true, "pages": 0}));
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
            Ok(pages) => self.answer(asker, &json!({"ok": true, "pages": pages})),
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
