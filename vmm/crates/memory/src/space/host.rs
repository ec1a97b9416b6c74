//! The host's mappings behind the guest's.

use vmm_abi::{Errno, Prot};

use super::AddressSpace;

impl AddressSpace {
    /// Puts inaccessible reserve back, so that the window never has a hole.
    pub(super) fn blank(&self, start: u64, len: u64) -> Result<(), Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.host_map(start, len, libc::PROT_NONE, flags, -1, 0)
    }

    pub(super) fn host_map(
        &self,
        start: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        offset: u64,
    ) -> Result<(), Errno> {
        let host = self.window.host(start, len).ok_or(Errno::ENOMEM)?;
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        self.note_change(start, len);
        let flags = flags | libc::MAP_FIXED;
        // SAFETY: the range lies in the window, which holds nothing that Rust refers to.
        let result = unsafe { libc::mmap(host.cast(), len as usize, prot, flags, fd, offset) };
        if result == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(())
    }

    pub(super) fn host_protect(&self, start: u64, len: u64, prot: i32) -> Result<(), Errno> {
        let host = self.window.host(start, len).ok_or(Errno::ENOMEM)?;
        // SAFETY: as in `host_map`.
        if unsafe { libc::mprotect(host.cast(), len as usize, prot) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(())
    }
}

/// The host protection behind a guest's: execution is the guest page table's matter alone.
pub(super) fn host_protection(prot: Prot) -> i32 {
    if prot.contains(Prot::WRITE) {
        libc::PROT_READ | libc::PROT_WRITE
    } else if prot.is_empty() {
        libc::PROT_NONE
    } else {
        libc::PROT_READ
    }
}
