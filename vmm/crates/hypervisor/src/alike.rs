//! Pages of the system area that all machines of one snapshot have alike: the guest's page tables, and what the processor reads.
//!
//! Whoever freezes a guest writes them down as a machine will have them that brings it back ([`Machine::likely_pages`]). Each such machine makes its
//! own all the same, and lets go of those that it finds in the snapshot's file byte for byte: the file's page is mapped instead, and copied
//! when it is written ([`Machine::share_pages`]). So nothing is believed of a file, and a table that differs costs memory alone.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_abi::{Errno, PAGE_SIZE};
use vmm_memory::{Extent, Mapper};

use crate::descriptors;
use crate::paging::Paging;
use crate::system_area::{
    IDT_PAGE, LIST_PAGE, STUB_PAGE, SYSTEM_BASE, SYSTEM_BYTES, SystemArea, TABLES, TOP_TABLE,
    VCPU_PAGES, VECTOR_PAGE, WORDS,
};
use crate::{HypervisorError, Machine};

/// Tables that are written down: those of 2 GiB in small pages. A guest with more has the rest to itself.
const MOST_TABLES: u64 = 1024;
/// Virtual CPUs that every machine has which is made ready.
const VCPUS: u64 = 1;
/// Bytes of a mapping must be there, and stay as they are, before they are compared with anything.
const NEEDED_SEALS: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK;
const WORDS_OF_PAGE: usize = (PAGE_SIZE / 8) as usize;

/// Where pages may be alike. Nothing writes there but the thread that makes or restores a machine, until its guest runs.
const ZONES: [(u64, u64); 3] = [
    (STUB_PAGE, WORDS),
    (VCPU_PAGES, LIST_PAGE),
    (TABLES, SYSTEM_BASE + SYSTEM_BYTES),
];

impl Machine {
    /// The pages of a machine of this kind whose mapper `fill` has been called with, and where they lie in its system area.
    ///
    /// # Errors
    /// [`HypervisorError::Memory`] for a host that has no room.
    pub fn likely_pages(
        &self,
        fill: &dyn Fn(&dyn Mapper) -> Result<(), Errno>,
    ) -> Result<Vec<(u64, Vec<u8>)>, HypervisorError> {
        let tables_end = TABLES.saturating_add(MOST_TABLES.saturating_mul(PAGE_SIZE));
        let area = Arc::new(SystemArea::with_tables_until(tables_end)?);
        for page in [STUB_PAGE, IDT_PAGE, VECTOR_PAGE] {
            area.write(
                page,
                &bytes(&self.area, page, page.saturating_add(PAGE_SIZE)),
            );
        }
        for index in 0..VCPUS {
            descriptors::write_vcpu(&area, index);
        }
        let paging = Paging::new(Arc::clone(&area), None, 0);
        // Where tables run out, those that are there are as good as with the rest.
        let _ = paging.and_then(|paging| fill(&paging));
        let vcpus_end = descriptors::stack_top(VCPUS.saturating_sub(1));
        let parts = [
            (STUB_PAGE, TOP_TABLE.saturating_add(PAGE_SIZE)),
            (VCPU_PAGES, vcpus_end),
            (TABLES, area.handed_out()),
        ];
        let part = |(start, end): (u64, u64)| {
            (start.saturating_sub(SYSTEM_BASE), bytes(&area, start, end))
        };
        Ok(parts.into_iter().map(part).collect())
    }

    /// Maps pages of a file where this machine holds the same, copied when they are written. [`Extent::at`] counts from the start of the system area. A file that could
    /// still be changed is let alone. Answers how many pages that were. No guest code may run, and no virtual CPU be made meanwhile.
    ///
    /// # Errors
    /// EINVAL for extents that cannot be; what the host says.
    pub fn share_pages(&self, file: BorrowedFd<'_>, extents: &[Extent]) -> Result<u64, Errno> {
        let size = file_bytes(file)?;
        let mut end = 0;
        for extent in extents {
            end = check(extent, end, size).ok_or(Errno::EINVAL)?;
        }
        if !is_fixed(file) {
            return Ok(0);
        }
        self.area.note_alike();
        let mut shared = 0u64;
        for extent in extents {
            let there = Mapped::new(file, extent)?;
            shared = shared.saturating_add(there.replace_equal(&self.area, extent.at)?);
        }
        Ok(shared)
    }
}

/// Bytes of whole pages of an area.
fn bytes(area: &SystemArea, start: u64, end: u64) -> Vec<u8> {
    let words = (start..end).step_by(8).filter_map(|at| area.word(at));
    words
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
        .collect()
}

/// Whether nobody can change a file any more: it is sealed, or its mount cannot be written to (mount_setattr(2) makes one so only when nothing there is
/// open for writing). That its file system is mounted nowhere else is the word of who gives the file: sandboxd's is not.
fn is_fixed(file: BorrowedFd<'_>) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: takes numbers only.
    let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    if seals >= 0 && seals & NEEDED_SEALS == NEEDED_SEALS {
        return true;
    }
    // SAFETY: all zero is a value of it.
    let mut mount: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the host writes to `mount`, which lives here.
    let told = unsafe { libc::fstatvfs(fd, &raw mut mount) } == 0;
    told && mount.f_flag & libc::ST_RDONLY != 0
}

fn file_bytes(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    // SAFETY: all zero is a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the host writes to `stat`, which lives here.
    if unsafe { libc::fstat(file.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Where an extent ends, if it is of whole pages that lie behind `start`, in one of the zones, and in a file of that size.
fn check(extent: &Extent, start: u64, size: u64) -> Option<u64> {
    let Extent { at, len, offset } = *extent;
    let end = at.checked_add(len)?;
    let within = |(low, high): &(u64, u64)| {
        low.saturating_sub(SYSTEM_BASE) <= at && end <= high.saturating_sub(SYSTEM_BASE)
    };
    let sound = len > 0
        && at >= start
        && (at | len | offset) % PAGE_SIZE == 0
        && ZONES.iter().any(within)
        && offset.checked_add(len)? <= size;
    sound.then_some(end)
}

/// Pages of a sealed file, private to this process, until each has been moved or unmapped. After a failure some stay: the process is then to end.
struct Mapped {
    words: *const AtomicU64,
    pages: usize,
}

impl Mapped {
    fn new(file: BorrowedFd<'_>, extent: &Extent) -> Result<Self, Errno> {
        let offset = i64::try_from(extent.offset).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                extent.len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self {
            words: start.cast(),
            pages: (extent.len / PAGE_SIZE) as usize,
        })
    }

    fn page(&self, index: usize) -> *const AtomicU64 {
        self.words.wrapping_add(index.saturating_mul(WORDS_OF_PAGE))
    }

    /// Whether a page is what an area holds at an address.
    fn equals(&self, index: usize, area: &SystemArea, address: u64) -> bool {
        let page = self.page(index);
        (0..WORDS_OF_PAGE).all(|place| {
            let at = address.saturating_add((place as u64).saturating_mul(8));
            // SAFETY: the page lies in the mapping, and in the file, which neither shrinks nor changes.
            let there = unsafe { (*page.wrapping_add(place)).load(Ordering::Relaxed) };
            area.word(at)
                .is_some_and(|word| word.load(Ordering::Relaxed) == there)
        })
    }

    /// Moves those pages to an area that hold the same as it does, in as few pieces as there are, and unmaps the others. Answers how many were moved.
    fn replace_equal(self, area: &SystemArea, at: u64) -> Result<u64, Errno> {
        let address = |index: usize| {
            let offset = (index as u64).saturating_mul(PAGE_SIZE);
            SYSTEM_BASE.saturating_add(at).saturating_add(offset)
        };
        let is_equal = |index: &usize| self.equals(*index, area, address(*index));
        let mut moved = 0u64;
        let mut first = 0;
        while first < self.pages {
            let equal = (first..self.pages).take_while(is_equal).count();
            if equal > 0 {
                self.put(area, first, equal, address(first))?;
                moved = moved.saturating_add(equal as u64);
                first = first.saturating_add(equal);
            } else {
                self.unmap(first);
                first = first.saturating_add(1);
            }
        }
        Ok(moved)
    }

    fn put(&self, area: &SystemArea, first: usize, count: usize, to: u64) -> Result<(), Errno> {
        let place = area.word(to).ok_or(Errno::EINVAL)?;
        let place = ptr::from_ref(place).cast_mut();
        let len = count.saturating_mul(PAGE_SIZE as usize);
        let from = self.page(first).cast_mut();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both ranges lie in mappings of this process's own, of which nothing but atomics is referred to, and one holds what the other
        // does. What is left behind is not used any more.
        let result = unsafe { libc::mremap(from.cast(), len, len, flags, place) };
        if result == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(())
    }

    fn unmap(&self, index: usize) {
        let page = self.page(index).cast_mut();
        // SAFETY: a page of this mapping that has not been moved, and is not used any more.
        unsafe { libc::munmap(page.cast(), PAGE_SIZE as usize) };
    }
}

#[cfg(test)]
#[path = "alike_tests.rs"]
mod tests;
