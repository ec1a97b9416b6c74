use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

/// A snapshot's file, whose bytes are read over and over: from a mapping of all of it, made when they are first asked for.
#[derive(Debug)]
pub struct SavedFile {
    file: OwnedFd,
    mapped: OnceLock<Mapped>,
}

/// Unmapped on drop.
#[derive(Debug)]
struct Mapped {
    base: *const u8,
    len: usize,
}

// SAFETY: memory that nobody writes to and no Rust reference points into.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `SavedFile::bytes`, and only copies under way looked at it.
        unsafe { libc::munmap(self.base.cast_mut().cast(), self.len) };
    }
}

impl SavedFile {
    #[must_use]
    pub fn new(file: OwnedFd) -> Self {
        Self {
            file,
            mapped: OnceLock::new(),
        }
    }

    /// Where `len` bytes from an offset on lie, to be copied only ([`crate::copy`]): a file that was cut faults. `None` beyond its end.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> io::Result<Option<*const u8>> {
        let mapped = match self.mapped.get() {
            Some(mapped) => mapped,
            None => {
                let mapped = self.map()?;
                self.mapped.get_or_init(|| mapped)
            }
        };
        let end = offset.checked_add(len);
        let inside = end.is_some_and(|end| end <= mapped.len as u64);
        Ok(inside.then(|| mapped.base.wrapping_add(offset as usize)))
    }

    fn map(&self) -> io::Result<Mapped> {
        let len = rustix::fs::fstat(&self.file)?.st_size;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let (flags, fd) = (libc::MAP_PRIVATE, self.file.as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapped {
            base: base.cast_const().cast(),
            len,
        })
    }
}

impl AsFd for SavedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_there_up_to_the_end_of_the_file_and_no_further() {
        let file = rustix::fs::memfd_create("saved", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 8192).unwrap();
        let saved = SavedFile::new(file);
        let first = saved.bytes(0, 8192).unwrap().unwrap();
        assert_eq!(
            saved.bytes(4096, 4096).unwrap(),
            Some(first.wrapping_add(4096))
        );
        for (offset, len) in [(0, 8193), (8192, 1), (4096, u64::MAX), (u64::MAX, 1)] {
            assert_eq!(saved.bytes(offset, len).unwrap(), None, "{offset} {len}");
        }
    }
}
