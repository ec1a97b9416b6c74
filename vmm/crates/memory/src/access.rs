//! Copies between monitor and guest. The host's protections are the guest's, and a copy ends where they end ([`crate::copy`]): a guest that changes its
//! mappings meanwhile gets EFAULT.

use vmm_abi::{Errno, Iovec, PAGE_SIZE};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::AddressSpace;
use crate::copy::copy;

/// Most entries of one iovec array (IOV_MAX of Linux).
const IOV_MAX: u64 = 1024;
/// Most bytes of one read or write (MAX_RW_COUNT of Linux: INT_MAX rounded down to a page).
const MAX_TRANSFER: u64 = 0x7fff_f000;

impl AddressSpace {
    /// Reads exactly `buffer.len()` bytes at `address`.
    ///
    /// # Errors
    /// EFAULT when any of them cannot be read by the guest.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if self.read_some(address, buffer)? == buffer.len() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// Reads up to `buffer.len()` bytes, fewer where unreadable pages begin.
    ///
    /// # Errors
    /// EFAULT when not even the first byte can be read.
    pub fn read_some(&self, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let host = self
            .window()
            .host(address, buffer.len() as u64)
            .ok_or(Errno::EFAULT)?;
        // SAFETY: the buffer is exclusive; the rest lies in the window, where nothing of Rust's is, and whose making settled copies.
        let count = unsafe { copy(buffer.as_mut_ptr(), host, buffer.len()) };
        if count == 0 {
            return Err(Errno::EFAULT);
        }
        Ok(count)
    }

    /// Writes all of `bytes` at `address`.
    ///
    /// # Errors
    /// EFAULT when any of them cannot be written by the guest; some may have been written.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let host = self
            .window()
            .host(address, bytes.len() as u64)
            .ok_or(Errno::EFAULT)?;
        // SAFETY: the bytes are only read; the rest as in [`AddressSpace::read_some`].
        let count = unsafe { copy(host, bytes.as_ptr(), bytes.len()) };
        if count == bytes.len() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// Reads one plain value.
    ///
    /// # Errors
    /// EFAULT as [`AddressSpace::read`].
    pub fn read_value<T: FromBytes + IntoBytes + FromZeros>(
        &self,
        address: u64,
    ) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read(address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes one plain value.
    ///
    /// # Errors
    /// EFAULT as [`AddressSpace::write`].
    pub fn write_value<T: IntoBytes + Immutable>(
        &self,
        address: u64,
        value: &T,
    ) -> Result<(), Errno> {
        self.write(address, value.as_bytes())
    }

    /// Reads the bytes before the first NUL.
    ///
    /// # Errors
    /// EFAULT when memory ends first; `too_long` when `limit` bytes hold no NUL.
    pub fn read_string(
        &self,
        address: u64,
        limit: usize,
        too_long: Errno,
    ) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        let mut at = address;
        let mut chunk = [0u8; 256];
        while text.len() < limit {
            // A chunk never crosses a page, so that it is readable as a whole or not at all.
            let in_page = PAGE_SIZE.wrapping_sub(at % PAGE_SIZE) as usize;
            let want = chunk
                .len()
                .min(in_page)
                .min(limit.saturating_sub(text.len()));
            let part = chunk.get_mut(..want).ok_or(Errno::EFAULT)?;
            self.read(at, part)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                text.extend(part.iter().take(end));
                return Ok(text);
            }
            text.extend_from_slice(part);
            at = at.checked_add(want as u64).ok_or(Errno::EFAULT)?;
        }
        Err(too_long)
    }

    /// Reads an iovec array and checks it as Linux does: at most 1024 entries, lengths that add up
    /// below 2^63; what exceeds the longest transfer is cut off.
    ///
    /// # Errors
    /// EINVAL for a bad count or length, EFAULT for an unreadable array.
    pub fn read_iovecs(&self, address: u64, count: u64) -> Result<Vec<Iovec>, Errno> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let mut list = vec![Iovec::default(); count as usize];
        self.read(address, list.as_mut_slice().as_mut_bytes())?;
        let mut left = MAX_TRANSFER;
        for entry in &mut list {
            if entry.len > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            entry.len = entry.len.min(left);
            left = left.saturating_sub(entry.len);
        }
        Ok(list)
    }

    /// The same ranges as host iovecs, for handing to a host system call, which does its own checks.
    ///
    /// # Errors
    /// EFAULT when a range does not lie in the window.
    pub fn host_iovecs(&self, list: &[Iovec]) -> Result<Vec<libc::iovec>, Errno> {
        list.iter()
            .filter(|entry| entry.len > 0)
            .map(|entry| {
                let host = self
                    .window()
                    .host(entry.base, entry.len)
                    .ok_or(Errno::EFAULT)?;
                Ok(libc::iovec {
                    iov_base: host.cast(),
                    iov_len: entry.len as usize,
                })
            })
            .collect()
    }

    /// One range as an iovec, its length cut to the longest transfer.
    #[must_use]
    pub fn single(address: u64, len: u64) -> [Iovec; 1] {
        [Iovec {
            base: address,
            len: len.min(MAX_TRANSFER),
        }]
    }

    /// Copies `bytes` into the ranges, in order; answers how many found room.
    ///
    /// # Errors
    /// EFAULT when the first byte cannot be written.
    pub fn scatter(&self, list: &[Iovec], bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0usize;
        for entry in list {
            let rest = bytes.get(done..).unwrap_or_default();
            let part = rest
                .get(..rest.len().min(entry.len as usize))
                .unwrap_or_default();
            match self.write(entry.base, part) {
                Ok(()) => done = done.saturating_add(part.len()),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Copies at most `limit` bytes out of the ranges, in order.
    ///
    /// # Errors
    /// EFAULT when the first byte cannot be read.
    pub fn gather(&self, list: &[Iovec], limit: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        for entry in list {
            let want = (entry.len as usize).min(limit.saturating_sub(bytes.len()));
            let start = bytes.len();
            bytes.resize(start.saturating_add(want), 0);
            let read = self.read_some(entry.base, bytes.get_mut(start..).unwrap_or_default());
            match read {
                Ok(count) if count == want => {}
                Ok(count) => {
                    bytes.truncate(start.saturating_add(count));
                    return Ok(bytes);
                }
                Err(errno) if start == 0 => return Err(errno),
                Err(_) => {
                    bytes.truncate(start);
                    return Ok(bytes);
                }
            }
        }
        Ok(bytes)
    }
}
