//! Guest memory: one large host reservation ("window") in which host address = base + guest address.
//!
//! The host's page tables do the memory management: every guest mapping is a host mapping of the
//! same pages at `base + address` with the same protection. What the processor needs beside it
//! (guest page tables, KVM slots) is told through [`Mapper`]. Nothing here knows system calls or KVM.

mod access;
mod copy;
mod error;
mod mapper;
mod page_map;
mod saved;
mod saved_file;
mod space;
mod vma;
mod window;

pub use error::MemoryError;
pub use mapper::{Coming, Mapper, NoMapper};
pub use page_map::PageMap;
pub use saved::{Extent, MappingState, MemoryState, PageStore, SaveError};
pub use saved_file::SavedFile;
pub use space::{AddressSpace, Backing, Limits, MapRequest, Meter, Place, Undone};
pub use vma::{Charge, Kind, Vma, VmaSet};
pub use window::Window;

/// Rounds up to a whole page; `None` past the end of the address space.
#[must_use]
pub fn page_up(value: u64) -> Option<u64> {
    value
        .checked_add(vmm_abi::PAGE_SIZE.wrapping_sub(1))
        .map(page_down)
}

/// Rounds down to a whole page.
#[must_use]
pub fn page_down(value: u64) -> u64 {
    value & !vmm_abi::PAGE_SIZE.wrapping_sub(1)
}
