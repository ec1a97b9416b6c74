//! Pages that are made before the guest touches them, or many of them at one touch: that costs a fraction of what each first
//! touch costs, which goes through KVM.

use vmm_abi::{PAGE_SIZE, Prot};

use super::{AddressSpace, Backing, Layout, MapRequest, Place};
use crate::{Charge, Kind, Vma};

/// Longest mapping that is filled at once. What is longer is seldom used whole.
const FILLED_BYTES: u64 = 256 << 10;
/// The same for memory whose place is left to the kernel. Who wants a part of it names one: V8 hints at a random address, maps twice what it needs, and
/// cuts off what is not aligned. The others are allocators, which map for one object that was asked for.
const FILLED_OBJECT_BYTES: u64 = 1280 << 10;
/// Longest part of a reserve that is filled when it is made writable: such steps are taken when there is something to write.
const FILLED_PART_BYTES: u64 = 64 << 10;

/// Shortest mapping, or step of the break, that is asked of the host in large pages. Who takes so much at once takes it for one object (an array, a buffer).
const LARGE_BYTES: u64 = 4 << 20;

impl Layout {
    /// Notes that a range is no longer what it was when it was mapped.
    pub(super) fn cut(&mut self, start: u64, end: u64) {
        let Some((low, high)) = self.uncut.filter(|(low, high)| start < *high && *low < end) else {
            return;
        };
        self.uncut = match (start <= low, high <= end) {
            (true, false) => Some((end, high)),
            (false, true) => Some((low, start)),
            // Nothing is left, or two pieces: not what who aligns a mapping does.
            _ => None,
        };
    }
}

impl AddressSpace {
    /// Fills a new private mapping, if it is short; keeps a longer one in mind.
    pub(super) fn fill_new(
        &self,
        layout: &mut Layout,
        request: &MapRequest<'_>,
        start: u64,
        end: u64,
    ) {
        // Memory that is not charged is a reserve, or a stack.
        if request.charge != Charge::Always || !request.prot.contains(Prot::WRITE) {
            return;
        }
        self.fill_at_touch(layout, request, start, end);
        let most = match (&request.backing, request.place) {
            (Backing::Anonymous, Place::Anywhere(0)) => FILLED_OBJECT_BYTES,
            // Of files these are the variables of programs and libraries.
            (Backing::Anonymous | Backing::File { shared: false, .. }, _) => FILLED_BYTES,
            _ => return,
        };
        if end.saturating_sub(start) <= most {
            self.fill(start, end);
        } else if matches!(request.backing, Backing::Anonymous) {
            layout.uncut = Some((start, end));
        }
    }

    /// Has the host make 2 MiB at the first touch within them, if the mapping is long: a touch of each of their pages costs the guest ten times what it
    /// costs a process. Only as long as twice the mapping fits under half of the limit beside what is in use, so that a program that touches little of many
    /// such mappings keeps the other half. A host without such pages, or that has none just now, gives small ones.
    fn fill_at_touch(&self, layout: &Layout, request: &MapRequest<'_>, start: u64, end: u64) {
        let len = end.saturating_sub(start);
        // Who names a place lays out a heap of his own in it.
        let named = !matches!(request.place, Place::Anywhere(0)) && request.kind != Kind::Heap;
        if named || len < LARGE_BYTES || !matches!(request.backing, Backing::Anonymous) {
            return;
        }
        let most = self.in_use(layout).saturating_add(len.saturating_mul(2));
        if most <= self.limits.bytes / 2 {
            self.hint(start, end, libc::MADV_HUGEPAGE);
        }
    }

    /// Fills a part of a reserve that has just been given its protection, if that makes it memory to write and it is short.
    pub(super) fn fill_part(&self, part: &Vma, now: Prot) {
        let gains = now.contains(Prot::WRITE) && !part.prot.contains(Prot::WRITE);
        if gains && part.charge == Charge::InParts && part.len() <= FILLED_PART_BYTES {
            self.fill(part.start, part.end);
        }
    }

    /// Fills what is left of a mapping that was made longer than needed and has been cut to an aligned
    /// address and size: V8 gets each piece of its heap so.
    pub(super) fn fill_rest(&self, layout: &mut Layout) {
        if let Some((start, end)) = layout.uncut
            && end.saturating_sub(start) <= FILLED_BYTES
        {
            layout.uncut = None;
            self.fill(start, end);
        }
    }

    /// Makes pages the process's own that it is likely to write: those of `written`, the first and how many each, as far as they lie in memory
    /// that may be written. What is not so is left out; nothing depends on it.
    pub fn copy_ahead(&self, written: &[(u64, u64)]) {
        let layout = self.layout.read();
        for (page, count) in written {
            let start = page.saturating_mul(PAGE_SIZE);
            let end = page.saturating_add(*count).saturating_mul(PAGE_SIZE);
            for part in layout.vmas.overlapping(start, end) {
                if part.prot.contains(Prot::WRITE) {
                    self.fill(part.start, part.end);
                }
            }
        }
    }

    fn fill(&self, start: u64, end: u64) {
        self.hint(start, end, libc::MADV_POPULATE_WRITE);
    }

    /// Where the host refuses, pages come one by one as they are touched. `advice` changes no page that is there.
    fn hint(&self, start: u64, end: u64, advice: i32) {
        let len = end.saturating_sub(start);
        if let Some(host) = self.window.host(start, len) {
            // SAFETY: the range lies in the window, which holds nothing that Rust refers to, and the
            // advice changes no page that is there.
            unsafe { libc::madvise(host.cast(), len as usize, advice) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, NoMapper, Window};
    use std::sync::Arc;

    fn space() -> AddressSpace {
        let limits = Limits { bytes: 64 << 20 };
        let window = Window::reserve(1 << 30).unwrap();
        AddressSpace::new(window, Arc::new(NoMapper), limits)
    }

    fn anonymous(place: Place, len: u64, charge: Charge) -> MapRequest<'static> {
        let reserve = charge == Charge::InParts;
        MapRequest {
            place,
            len,
            prot: if reserve { Prot::empty() } else { Prot::RW },
            allowed: Prot::all(),
            backing: Backing::Anonymous,
            kind: Kind::Anonymous,
            charge,
        }
    }

    /// How many pages of a range the host has.
    fn filled(space: &AddressSpace, at: u64, len: u64) -> usize {
        let host = space.window.host(at, len).unwrap();
        let mut pages = vec![0u8; (len / PAGE_SIZE) as usize];
        // SAFETY: mincore(2) writes a byte for each page of a range that is mapped.
        let answer = unsafe { libc::mincore(host.cast(), len as usize, pages.as_mut_ptr()) };
        assert_eq!(answer, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn what_is_used_whole_is_filled_and_what_is_cut_or_reserved_is_not() {
        const LONG: u64 = 1 << 20;
        let space = space();
        let map = |place, len, charge| space.map(&anonymous(place, len, charge)).unwrap();
        let object = map(Place::Anywhere(0), LONG, Charge::Always);
        assert_eq!(filled(&space, object, LONG), 256);
        let larger = map(Place::Anywhere(0), 2 * LONG, Charge::Always);
        assert_eq!(filled(&space, larger, 2 * LONG), 0);
        let hinted = map(Place::Anywhere(1 << 40), LONG, Charge::Always);
        assert_eq!(filled(&space, hinted, LONG), 0);
        space.unmap(hinted, LONG - FILLED_BYTES).unwrap();
        let rest = hinted + LONG - FILLED_BYTES;
        assert_eq!(filled(&space, rest, FILLED_BYTES), 64);
        let reserve = map(Place::Anywhere(0), LONG, Charge::InParts);
        space.protect(reserve, FILLED_PART_BYTES, Prot::RW).unwrap();
        let next = reserve + FILLED_PART_BYTES;
        space
            .protect(next, 2 * FILLED_PART_BYTES, Prot::RW)
            .unwrap();
        assert_eq!(filled(&space, reserve, LONG), 16);
    }

    /// Whether the host was asked for large pages there: its word of the mapping (proc_pid_smaps(5), VmFlags).
    fn is_large(space: &AddressSpace, at: u64) -> bool {
        let at = space.window.host(at, PAGE_SIZE).unwrap() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut found = false;
        for line in smaps.lines() {
            let ends = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            let ends = ends.and_then(|(start, end)| {
                let start = usize::from_str_radix(start, 16).ok()?;
                Some((start, usize::from_str_radix(end, 16).ok()?))
            });
            if let Some((start, end)) = ends {
                found = (start..end).contains(&at);
            } else if found && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split(' ').any(|flag| flag == "hg");
            }
        }
        panic!("nothing is mapped at {at:#x}");
    }

    #[test]
    fn what_is_long_comes_in_large_pages_while_little_of_the_limit_is_in_use() {
        let space = space();
        let map = |place, len, charge| space.map(&anonymous(place, len, charge)).unwrap();
        let anywhere = Place::Anywhere(0);
        assert!(is_large(&space, map(anywhere, LARGE_BYTES, Charge::Always)));
        let short = map(anywhere, LARGE_BYTES - PAGE_SIZE, Charge::Always);
        assert!(!is_large(&space, short));
        for (place, charge) in [
            (Place::Anywhere(1 << 29), Charge::Always),
            (anywhere, Charge::InParts),
            (anywhere, Charge::Never),
        ] {
            assert!(
                !is_large(&space, map(place, LARGE_BYTES, charge)),
                "{place:?} {charge:?}"
            );
        }
        space.set_heap(1 << 28);
        assert_eq!(
            space.set_break((1 << 28) + PAGE_SIZE),
            (1 << 28) + PAGE_SIZE
        );
        let end = space.set_break((1 << 28) + PAGE_SIZE + LARGE_BYTES);
        assert!(is_large(&space, end - PAGE_SIZE) && !is_large(&space, 1 << 28));
        // Without a meter all that was given counts: half of the 64 MiB.
        map(anywhere, 10 << 20, Charge::Always);
        assert!(!is_large(
            &space,
            map(anywhere, LARGE_BYTES, Charge::Always)
        ));
    }

    #[test]
    fn what_is_copied_beforehand_lies_in_memory_that_may_be_written() {
        let space = space();
        let map = |at, prot| {
            let request = MapRequest {
                prot,
                ..anonymous(Place::Fixed(at), 16 * PAGE_SIZE, Charge::Never)
            };
            space.map(&request).unwrap()
        };
        let (first, second) = (16 * PAGE_SIZE, 64 * PAGE_SIZE);
        map(first, Prot::RW);
        map(second, Prot::READ);
        space.copy_ahead(&[(18, 2), (30, 10), (60, u64::MAX), (u64::MAX, 1)]);
        assert_eq!(filled(&space, first, 16 * PAGE_SIZE), 4);
        assert_eq!(filled(&space, second, 16 * PAGE_SIZE), 0);
    }

    #[test]
    fn a_long_mapping_is_cut_to_what_is_left_of_it() {
        let left = |cuts: &[(u64, u64)]| {
            let mut layout = Layout {
                uncut: Some((100, 200)),
                ..Layout::default()
            };
            for (start, end) in cuts {
                layout.cut(*start, *end);
            }
            layout.uncut
        };
        assert_eq!(left(&[(0, 100), (200, 300)]), Some((100, 200)));
        assert_eq!(left(&[(90, 130), (180, 250)]), Some((130, 180)));
        assert_eq!(left(&[(100, 110), (190, 200)]), Some((110, 190)));
        assert_eq!(left(&[(120, 130)]), None);
        assert_eq!(left(&[(100, 150), (150, 200)]), None);
    }
}
