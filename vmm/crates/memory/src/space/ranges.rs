//! Sets of ranges of guest addresses.

use std::collections::BTreeMap;

/// Ranges that are kept apart at most; a guest that makes more is not worth undoing.
pub(super) const MOST_CHANGES: usize = 16_384;

/// Ranges of the window: never adjacent, never overlapping.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    pub ends: BTreeMap<u64, u64>,
    /// There were more than are kept apart: what is here is not all.
    pub too_many: bool,
}

impl Ranges {
    pub fn add(&mut self, start: u64, end: u64) {
        if end <= start || self.too_many {
            return;
        }
        let (mut start, mut end) = (start, end);
        while let Some((&low, &high)) = self.ends.range(..=end).next_back() {
            if high < start {
                break;
            }
            self.ends.remove(&low);
            (start, end) = (start.min(low), end.max(high));
        }
        self.ends.insert(start, end);
        self.too_many = self.ends.len() > MOST_CHANGES;
    }

    /// Adds the first bytes of a range that are not among them, as many as there is room for.
    pub fn add_within(&mut self, start: u64, end: u64, room: &mut u64) {
        let mut at = start;
        let mut gaps = Vec::new();
        for (low, high) in self.within(start, end) {
            gaps.push((at, low));
            at = high;
        }
        gaps.push((at, end));
        for (low, high) in gaps {
            let high = high.min(low.saturating_add(*room));
            *room = room.saturating_sub(high.saturating_sub(low));
            self.add(low, high);
        }
    }

    pub fn bytes(&self) -> u64 {
        let lengths = self
            .ends
            .iter()
            .map(|(low, high)| high.saturating_sub(*low));
        lengths.fold(0, u64::saturating_add)
    }

    /// The parts of them in a range.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let end = end.max(start);
        let before = self.ends.range(..=start).next_back().map(|(low, _)| *low);
        self.ends
            .range(before.unwrap_or(start)..end)
            .map(move |(low, high)| (start.max(*low), end.min(*high)))
            .filter(|(low, high)| low < high)
    }
}
