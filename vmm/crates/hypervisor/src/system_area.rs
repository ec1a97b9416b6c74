use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use vmm_abi::{Errno, PAGE_SIZE, inside};

use crate::{HypervisorError, WINDOW_BYTES};

/// Guest address (physical and virtual) of the system area.
pub(crate) const SYSTEM_BASE: u64 = WINDOW_BYTES;
/// Bytes of the system area. Page tables take nearly all of it: 60 MiB of them reach 30 GiB of memory
/// in 4 KiB pages. Pages of it that are never written cost nothing.
pub(crate) const SYSTEM_BYTES: u64 = 64 << 20;

/// The page that `syscall` leads to; the one page of the area a guest may run.
pub(crate) const STUB_PAGE: u64 = SYSTEM_BASE;
/// The interrupt descriptor table.
pub(crate) const IDT_PAGE: u64 = SYSTEM_BASE + PAGE_SIZE;
/// Entry points of the exception vectors, 16 bytes each.
pub(crate) const VECTOR_PAGE: u64 = SYSTEM_BASE + 2 * PAGE_SIZE;
/// The top-level page table.
pub(crate) const TOP_TABLE: u64 = SYSTEM_BASE + 3 * PAGE_SIZE;
/// What the code in the stub page reads; the guest may, too.
pub(crate) const WORDS: u64 = SYSTEM_BASE + 4 * PAGE_SIZE;
/// What that code and the guest write.
pub(crate) const OPEN_WORDS: u64 = WORDS + (inside::WORDS as u64) * 8;
/// Two pages per vCPU: descriptor table with task state, and exception stack.
pub(crate) const VCPU_PAGES: u64 = OPEN_WORDS + (inside::OPEN_WORDS as u64) * 8;
/// Most vCPUs of one machine.
pub(crate) const MAX_VCPUS: u64 = 256;
/// Addresses that the touching code of the stub page is to read from; the guest may read the page, too.
pub(crate) const LIST_PAGE: u64 = VCPU_PAGES + MAX_VCPUS * 2 * PAGE_SIZE;
/// Where tables are handed out.
pub(crate) const TABLES: u64 = LIST_PAGE + PAGE_SIZE;
/// Bytes of the area that must be mapped for the processor itself: all but the tables.
pub(crate) const MAPPED_BYTES: u64 = TABLES - SYSTEM_BASE;

/// Host memory behind the system area, as 8-byte words.
#[derive(Debug)]
pub(crate) struct SystemArea {
    words: *const AtomicU64,
    next_table: AtomicUsize,
    /// First address behind the last table that may be handed out.
    tables_end: u64,
    /// Pages of it are a file's, copied when they are written ([`crate::alike`]).
    alike: AtomicBool,
}

// SAFETY: all access goes through atomics in a mapping that lives as long as the value.
unsafe impl Send for SystemArea {}
// SAFETY: as above.
unsafe impl Sync for SystemArea {}

impl SystemArea {
    pub(crate) fn new() -> Result<Self, HypervisorError> {
        Self::with_tables_until(SYSTEM_BASE.saturating_add(SYSTEM_BYTES))
    }

    /// One whose tables end there, if not before.
    pub(crate) fn with_tables_until(end: u64) -> Result<Self, HypervisorError> {
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                SYSTEM_BYTES as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(HypervisorError::Memory(io::Error::last_os_error()));
        }
        Ok(Self {
            words: start.cast(),
            next_table: AtomicUsize::new(TABLES as usize),
            tables_end: end.min(SYSTEM_BASE.saturating_add(SYSTEM_BYTES)),
            alike: AtomicBool::new(false),
        })
    }

    /// From now on what is written where it stands already is not written.
    pub(crate) fn note_alike(&self) {
        self.alike.store(true, Ordering::Relaxed);
    }

    /// Writes a word at a guest address of the area; whether there is one. A page that is a file's is not to be copied for what it holds.
    pub(crate) fn store(&self, address: u64, value: u64, order: Ordering) -> bool {
        let Some(cell) = self.word(address) else {
            return false;
        };
        if !self.alike.load(Ordering::Relaxed) || cell.load(Ordering::Relaxed) != value {
            cell.store(value, order);
        }
        true
    }

    /// Gives a page back to the host that holds nothing any more. It is all zero when it is touched again.
    pub(crate) fn give_back(&self, page: u64) {
        if let Some(word) = self.word(page) {
            let page = std::ptr::from_ref(word).cast_mut();
            // SAFETY: a whole page of the mapping, of which nothing but atomics is ever referred to; private pages of it become zero. A host
            // that refuses keeps the page.
            unsafe { libc::madvise(page.cast(), PAGE_SIZE as usize, libc::MADV_DONTNEED) };
        }
    }

    /// First address behind the tables that were handed out.
    pub(crate) fn handed_out(&self) -> u64 {
        self.next_table.load(Ordering::Relaxed) as u64
    }

    /// Host address, for the memory slot.
    pub(crate) fn host_address(&self) -> u64 {
        self.words as u64
    }

    /// The word at a guest address of the area; `None` outside it.
    pub(crate) fn word(&self, address: u64) -> Option<&AtomicU64> {
        let offset = address.checked_sub(SYSTEM_BASE)?;
        if offset >= SYSTEM_BYTES || offset % 8 != 0 {
            return None;
        }
        // SAFETY: the offset lies in the mapping, is aligned, and the mapping outlives `self`.
        Some(unsafe { &*self.words.wrapping_add((offset / 8) as usize) })
    }

    /// Writes bytes at an 8-byte aligned address, the last word filled up with zeroes.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        for (at, value) in words(address, bytes) {
            self.store(at, value, Ordering::Relaxed);
        }
    }

    /// Address of the first word that is not what [`Self::write`] with the same arguments wrote.
    pub(crate) fn first_difference(&self, address: u64, bytes: &[u8]) -> Option<u64> {
        words(address, bytes)
            .find(|(at, value)| {
                self.word(*at)
                    .is_none_or(|cell| cell.load(Ordering::Relaxed) != *value)
            })
            .map(|(at, _)| at)
    }

    /// A zeroed page for a page table.
    pub(crate) fn new_table(&self) -> Result<u64, Errno> {
        let next = self
            .next_table
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
                let end = at.checked_add(PAGE_SIZE as usize)?;
                (end as u64 <= self.tables_end).then_some(end)
            });
        next.map(|at| at as u64).map_err(|_| Errno::ENOMEM)
    }
}

/// Bytes as words with their addresses, the last filled up with zeroes.
fn words(address: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    bytes.chunks(8).enumerate().map(move |(index, chunk)| {
        let mut word = [0u8; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        let at = address.saturating_add((index as u64).saturating_mul(8));
        (at, u64::from_le_bytes(word))
    })
}

impl Drop for SystemArea {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the machine that used it is gone.
        unsafe { libc::munmap(self.words.cast_mut().cast(), SYSTEM_BYTES as usize) };
    }
}
