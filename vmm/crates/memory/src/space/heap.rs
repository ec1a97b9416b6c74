//! The break area.

use vmm_abi::Prot;

use super::{AddressSpace, Backing, MapRequest, Place};
use crate::{Charge, Kind, page_up};

impl AddressSpace {
    /// Sets where the break area begins (after the program's own segments).
    pub fn set_heap(&self, start: u64) {
        let mut layout = self.layout.write();
        (layout.heap_start, layout.heap_end) = (start, start);
    }

    /// brk(2): moves the end of the break area where possible; answers where it is.
    #[must_use]
    pub fn set_break(&self, wanted: u64) -> u64 {
        let mut layout = self.layout.write();
        let current = layout.heap_end;
        let (Some(from), Some(to)) = (page_up(current), page_up(wanted)) else {
            return current;
        };
        if wanted < layout.heap_start {
            return current;
        }
        let changed = if to > from {
            let request = MapRequest {
                allowed: Prot::all(),
                place: Place::FixedNoReplace(from),
                len: to.saturating_sub(from),
                prot: Prot::RW,
                backing: Backing::Anonymous,
                kind: Kind::Heap,
                charge: Charge::Always,
            };
            self.map_locked(&mut layout, &request).map(|_| ())
        } else if to < from {
            self.clear(&mut layout, to, from)
        } else {
            Ok(())
        };
        if changed.is_ok() {
            layout.heap_end = wanted;
        }
        layout.heap_end
    }
}
