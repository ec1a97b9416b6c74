use std::{io, ptr};

use crate::{MemoryError, copy};

/// A host address range that stands for guest addresses `0..size`; unmapped on drop.
#[derive(Debug)]
pub struct Window {
    base: *mut u8,
    size: u64,
}

// SAFETY: a Window is an address range; every access through it goes by system calls that check
// the range themselves or by copies that a fault ends, never through Rust references.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Reserves `size` bytes of inaccessible address space, aligned to 2 MiB so that huge pages of
    /// guest and host coincide; from then on a fault ends a copy, not the process.
    ///
    /// # Errors
    /// [`MemoryError`] when the host refuses either.
    pub fn reserve(size: u64) -> Result<Self, MemoryError> {
        const ALIGN: usize = 2 << 20;
        copy::settle().map_err(MemoryError::Faults)?;
        let length = (size as usize).saturating_add(ALIGN);
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(MemoryError::Reserve(io::Error::last_os_error()));
        }
        let lead = (start as usize).wrapping_neg() & ALIGN.wrapping_sub(1);
        let base = start.cast::<u8>().wrapping_add(lead);
        let tail = ALIGN.saturating_sub(lead);
        // SAFETY: both ranges lie in the mapping made above, outside [base, base + size).
        unsafe {
            if lead > 0 {
                libc::munmap(start, lead);
            }
            if tail > 0 {
                libc::munmap(base.wrapping_add(size as usize).cast(), tail);
            }
        }
        Ok(Self { base, size })
    }

    /// Bytes in the window: the first guest address that is not in it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The host address of guest address 0.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// The host address of `[address, address + len)`, or `None` when it does not lie in the window.
    #[must_use]
    pub fn host(&self, address: u64, len: u64) -> Option<*mut u8> {
        let end = address.checked_add(len)?;
        (end <= self.size).then(|| self.base.wrapping_add(address as usize))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `reserve` and nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast(), self.size as usize) };
    }
}
