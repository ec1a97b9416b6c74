//! Logs as JSON lines on stderr, written by a thread of their own: whoever does not read them holds nothing back.

use std::time::{Duration, Instant};

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

const HELD_LINES: usize = 4096;

/// Starts logging. What is still held is written when the guard is dropped.
pub fn start(level: Level) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(HELD_LINES)
        .finish(std::io::stderr());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_max_level(level)
        .with_writer(writer)
        .init();
    guard
}

const LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// Lets through 20 lines in 10 s; for lines that a client or a sandbox can cause.
pub struct LineBudget {
    since: Instant,
    said: u32,
    dropped: u64,
}

impl LineBudget {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            said: 0,
            dropped: 0,
        }
    }

    /// Whether a line may be written now; with how many were left out before it.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= PERIOD {
            (self.since, self.said) = (now, 0);
        }
        if self.said >= LINES {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.said = self.said.saturating_add(1);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_twenty_lines_and_a_number() {
        let start = Instant::now();
        let mut budget = LineBudget::new(start);
        let said = (0..1000).filter(|_| budget.take(start).is_some()).count();
        assert_eq!(said, 20);
        assert_eq!(budget.take(start + PERIOD), Some(980));
        assert_eq!(budget.take(start + PERIOD), Some(0));
    }
}
