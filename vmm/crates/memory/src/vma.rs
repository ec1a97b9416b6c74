use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmm_abi::Prot;

/// Bytes below a stack that stay free.
const STACK_GAP: u64 = 1 << 20;

/// What lies behind a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Zeroed memory of the process.
    Anonymous,
    /// A file's pages; `offset` is that of the mapping's first byte.
    File {
        name: String,
        offset: u64,
        shared: bool,
    },
    /// Anonymous memory that is shared (MAP_SHARED | MAP_ANONYMOUS).
    SharedAnonymous,
    /// The break area.
    Heap,
    /// The first thread's stack.
    Stack,
    /// The vDSO, or other pages the monitor made.
    Special(String),
}

/// When a mapping has to fit under the memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charge {
    /// As soon as it is writable.
    Always,
    /// A reserve: when a part of it is made writable, unless that part is so large that it can only be a
    /// reserve again.
    InParts,
    /// Never: what is touched of it is in the way of others.
    Never,
}

/// One mapping: `[start, end)` with one protection and one backing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    pub prot: Prot,
    /// What mprotect(2) may make of it.
    pub allowed: Prot,
    pub kind: Kind,
    pub charge: Charge,
}

impl Vma {
    /// Bytes mapped.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Bytes that are promised to it, touched or not.
    #[must_use]
    pub fn committed(&self) -> u64 {
        if self.charge == Charge::Always && self.prot.contains(Prot::WRITE) {
            self.len()
        } else {
            0
        }
    }

    /// Whether nothing is mapped; never true for a mapping in a set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// The part of it in `[start, end)`, with the file offset moved along.
    #[must_use]
    pub fn slice(&self, start: u64, end: u64) -> Vma {
        let start = start.max(self.start);
        let mut part = Vma {
            start,
            end: end.min(self.end),
            ..self.clone()
        };
        if let Kind::File { offset, .. } = &mut part.kind {
            *offset = offset.saturating_add(start.saturating_sub(self.start));
        }
        part
    }

    fn continues(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.allowed == next.allowed
            && self.charge == next.charge
            && match (&self.kind, &next.kind) {
                (
                    Kind::File {
                        name,
                        offset,
                        shared,
                    },
                    Kind::File {
                        name: n,
                        offset: o,
                        shared: s,
                    },
                ) => name == n && shared == s && offset.saturating_add(self.len()) == *o,
                (a, b) => a == b,
            }
    }
}

/// The mappings of an address space, ordered and never overlapping.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VmaSet {
    by_start: BTreeMap<u64, Vma>,
}

impl VmaSet {
    /// How many mappings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// All mappings, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.by_start.values()
    }

    /// The mapping that holds `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Vma> {
        self.by_start
            .range(..=address)
            .next_back()
            .map(|(_, vma)| vma)
            .filter(|v| address < v.end)
    }

    /// The parts of mappings in `[start, end)`, by address.
    #[must_use]
    pub fn overlapping(&self, start: u64, end: u64) -> Vec<Vma> {
        let first = self.find(start).map_or(start, |vma| vma.start);
        if first >= end {
            return Vec::new();
        }
        self.by_start
            .range(first..end)
            .map(|(_, vma)| vma.slice(start, end))
            .collect()
    }

    /// Whether every byte of `[start, end)` is mapped.
    #[must_use]
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for part in self.overlapping(start, end) {
            if part.start != at {
                return false;
            }
            at = part.end;
        }
        at >= end
    }

    /// Takes `[start, end)` out, cutting mappings at its edges; answers what was there.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        let removed = self.overlapping(start, end);
        if let Some(left) = self.find(start).filter(|vma| vma.start < start).cloned() {
            let (head, tail) = (left.slice(left.start, start), left.slice(end, left.end));
            self.by_start.insert(head.start, head);
            if !tail.is_empty() {
                self.by_start.insert(tail.start, tail);
            }
        }
        if let Some(right) = self.find(end).filter(|vma| vma.start < end).cloned() {
            let tail = right.slice(end, right.end);
            self.by_start.insert(tail.start, tail);
        }
        for part in &removed {
            if self
                .by_start
                .get(&part.start)
                .is_some_and(|vma| vma.start >= start)
            {
                self.by_start.remove(&part.start);
            }
        }
        removed
    }

    /// Puts a mapping where nothing lies (see [`VmaSet::remove`]), joining it with its neighbours.
    pub fn insert(&mut self, mut vma: Vma) {
        if vma.is_empty() {
            return;
        }
        let before = self
            .by_start
            .range(..vma.start)
            .next_back()
            .map(|(_, v)| v.clone());
        if let Some(before) = before.filter(|b| b.continues(&vma)) {
            self.by_start.remove(&before.start);
            vma = Vma {
                end: vma.end,
                ..before
            };
        }
        let after = self.by_start.get(&vma.end).cloned();
        if let Some(after) = after.filter(|a| vma.continues(a)) {
            self.by_start.remove(&after.start);
            vma.end = after.end;
        }
        self.by_start.insert(vma.start, vma);
    }

    /// The start of the highest free range of `len` bytes that lies in `[low, high)`, aligned.
    #[must_use]
    pub fn find_free(&self, len: u64, low: u64, high: u64, align: u64) -> Option<u64> {
        let fit = |floor: u64, ceiling: u64| {
            let at = ceiling.checked_sub(len)? & !align.wrapping_sub(1);
            (at >= floor).then_some(at)
        };
        let mut ceiling = high;
        for vma in self.by_start.range(..high).rev().map(|(_, vma)| vma) {
            if vma.end < ceiling
                && let Some(at) = fit(vma.end.max(low), ceiling)
            {
                return Some(at);
            }
            // Nothing is put right below a stack that may grow over its end (stack_guard_gap of Linux).
            let gap = if vma.kind == Kind::Stack {
                STACK_GAP
            } else {
                0
            };
            ceiling = ceiling.min(vma.start.saturating_sub(gap));
            if ceiling <= low {
                return None;
            }
        }
        fit(low, ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vma(start: u64, end: u64, prot: Prot) -> Vma {
        Vma {
            start,
            end,
            prot,
            allowed: Prot::all(),
            kind: Kind::Anonymous,
            charge: Charge::Never,
        }
    }

    fn file(start: u64, end: u64, offset: u64) -> Vma {
        let kind = Kind::File {
            name: "f".into(),
            offset,
            shared: false,
        };
        Vma {
            start,
            end,
            prot: Prot::READ,
            allowed: Prot::all(),
            kind,
            charge: Charge::Never,
        }
    }

    #[test]
    fn a_hole_in_the_middle_leaves_both_ends() {
        let mut set = VmaSet::default();
        set.insert(file(0x1000, 0x9000, 0));
        assert_eq!(
            set.remove(0x3000, 0x5000),
            vec![file(0x3000, 0x5000, 0x2000)]
        );
        let left: Vec<_> = set.iter().cloned().collect();
        assert_eq!(
            left,
            vec![file(0x1000, 0x3000, 0), file(0x5000, 0x9000, 0x4000)]
        );
        assert!(!set.covers(0x1000, 0x9000));
    }

    #[test]
    fn neighbours_of_one_kind_join() {
        let mut set = VmaSet::default();
        set.insert(vma(0x1000, 0x2000, Prot::READ));
        set.insert(vma(0x3000, 0x4000, Prot::READ));
        set.insert(vma(0x2000, 0x3000, Prot::READ));
        assert_eq!(set.len(), 1);
        set.insert(vma(0x4000, 0x5000, Prot::RW));
        assert_eq!(set.len(), 2);
        assert!(set.covers(0x1000, 0x5000));
    }

    #[test]
    fn removal_over_several_takes_the_edges_off() {
        let mut set = VmaSet::default();
        set.insert(vma(0x1000, 0x3000, Prot::READ));
        set.insert(vma(0x3000, 0x5000, Prot::RW));
        set.insert(vma(0x6000, 0x8000, Prot::READ));
        assert_eq!(set.remove(0x2000, 0x7000).len(), 3);
        let left: Vec<_> = set.iter().map(|v| (v.start, v.end)).collect();
        assert_eq!(left, vec![(0x1000, 0x2000), (0x7000, 0x8000)]);
        assert_eq!(set.remove(0, u64::MAX).len(), 2);
        assert!(set.is_empty());
    }

    #[test]
    fn free_room_is_searched_from_the_top() {
        let mut set = VmaSet::default();
        set.insert(vma(0x8000, 0xa000, Prot::READ));
        assert_eq!(set.find_free(0x1000, 0x1000, 0xb000, 0x1000), Some(0xa000));
        assert_eq!(set.find_free(0x2000, 0x1000, 0xb000, 0x1000), Some(0x6000));
        assert_eq!(set.find_free(0x8000, 0x1000, 0xb000, 0x1000), None);
        assert_eq!(set.find_free(0x2000, 0x1000, 0xb000, 0x4000), Some(0x4000));
    }
}
