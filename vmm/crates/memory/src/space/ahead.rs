//! Pages that are made before the guest touches them: many by one call cost a fraction of what each first
//! touch costs, which goes through KVM.

use vmm_abi::{PAGE_SIZE, Prot};

use super::{AddressSpace, Backing, Layout, MapRequest};
use crate::Charge;

/// Longest mapping that is filled at once. What is longer is seldom used whole.
const FILLED_BYTES: u64 = 256 << 10;

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
        let anonymous = matches!(request.backing, Backing::Anonymous);
        if !anonymous || request.charge != Charge::Always || !request.prot.contains(Prot::WRITE) {
            return;
        }
        if end.saturating_sub(start) <= FILLED_BYTES {
            self.fill(start, end);
        } else {
            layout.uncut = Some((start, end));
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

    /// Where the host refuses, pages come one by one as they are touched.
    fn fill(&self, start: u64, end: u64) {
        let len = end.saturating_sub(start);
        if let Some(host) = self.window.host(start, len) {
            // SAFETY: the range lies in the window, which holds nothing that Rust refers to, and the
            // advice changes no page that is there.
            unsafe { libc::madvise(host.cast(), len as usize, libc::MADV_POPULATE_WRITE) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
