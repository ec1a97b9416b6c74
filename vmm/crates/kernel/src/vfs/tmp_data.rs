//! What files of the private file system hold: one memory file of the host each, so that it can be mapped.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use vmm_abi::{Errno, Iovec, Stat};
use vmm_memory::AddressSpace;

use super::DirEntry;
use super::host::{read_at, write_at};
use super::tmp::{Body, Shared, TmpNode};
use crate::file::File;

/// The bytes of a file.
pub(super) struct Data {
    fd: OwnedFd,
    size: Mutex<u64>,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

impl Data {
    /// An empty file; a sealable one takes seals as memfd_create(2) with MFD_ALLOW_SEALING.
    pub(super) fn new(sealable: bool) -> Result<Self, Errno> {
        let flags = if sealable {
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING
        } else {
            MemfdFlags::CLOEXEC
        };
        let fd = memfd_create("tmp", flags).map_err(errno)?;
        Ok(Self {
            fd,
            size: Mutex::new(0),
        })
    }

    /// Bytes in the file.
    pub(super) fn size(&self) -> u64 {
        *self.size.lock()
    }

    /// Bytes in the file, and bytes that pages were taken for.
    pub(super) fn size_and_used(&self) -> (u64, u64) {
        let used = fstat(&self.fd).map_or(0, |stat| stat.st_blocks);
        let used = u64::try_from(used).unwrap_or(0).saturating_mul(512);
        (self.size(), used)
    }

    /// Changes the size and what is charged for it.
    pub(super) fn resize(&self, shared: &Shared, wanted: u64) -> Result<(), Errno> {
        self.resize_locked(shared, &mut self.size.lock(), wanted)
    }

    fn resize_locked(&self, shared: &Shared, size: &mut u64, wanted: u64) -> Result<(), Errno> {
        let growth = wanted.saturating_sub(*size);
        shared.charge_bytes(growth)?;
        if let Err(error) = ftruncate(&self.fd, wanted) {
            shared.release_bytes(growth);
            return Err(errno(error));
        }
        shared.release_bytes(size.saturating_sub(wanted));
        *size = wanted;
        Ok(())
    }

    /// Makes room for `end` bytes while `change` writes them; what it did not write is cut off again.
    fn write_to(
        &self,
        shared: &Shared,
        offset: u64,
        len: u64,
        change: impl FnOnce() -> Result<u64, Errno>,
    ) -> Result<u64, Errno> {
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if len == 0 {
            return Ok(0);
        }
        let mut size = self.size.lock();
        let before = *size;
        if end > before {
            self.resize_locked(shared, &mut size, end)?;
        }
        let result = change();
        let written = offset.saturating_add(*result.as_ref().unwrap_or(&0));
        if end > before && written < end {
            self.resize_locked(shared, &mut size, written.max(before))?;
        }
        result
    }
}

impl TmpNode {
    fn data(&self) -> Result<&Data, Errno> {
        match &self.body {
            Body::File(data) => Ok(data),
            Body::Folder(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl File for TmpNode {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.attributes())
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], offset: u64) -> Result<u64, Errno> {
        read_at(self.data()?.fd.as_fd(), memory, to, offset)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], offset: u64) -> Result<u64, Errno> {
        let data = self.data()?;
        let len = from
            .iter()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.len));
        let written = data.write_to(&self.shared, offset, len, || {
            write_at(data.fd.as_fd(), memory, from, offset)
        })?;
        self.touch();
        Ok(written)
    }

    fn put(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let data = self.data()?;
        let written = data.write_to(&self.shared, offset, bytes.len() as u64, || {
            let range = [std::io::IoSlice::new(bytes)];
            let count = rustix::io::pwritev(&data.fd, &range, offset).map_err(errno)?;
            Ok(count as u64)
        })?;
        self.touch();
        Ok(written as usize)
    }

    fn get(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pread(&self.data()?.fd, bytes, offset).map_err(errno)
    }

    fn size(&self) -> Option<u64> {
        self.data().ok().map(Data::size)
    }

    fn entries(&self) -> Result<Vec<DirEntry>, Errno> {
        self.list()
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        self.data().ok().map(|data| data.fd.as_fd())
    }

    fn truncate(&self, wanted: u64) -> Result<(), Errno> {
        self.data()?.resize(&self.shared, wanted)?;
        self.touch();
        Ok(())
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let data = self.data()?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        i64::try_from(end).map_err(|_| Errno::EFBIG)?;
        match mode {
            0 if end > data.size() => data.resize(&self.shared, end)?,
            // Pages come when they are written: the size alone is charged.
            0 | libc::FALLOC_FL_KEEP_SIZE => {}
            mode if mode == libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE => {
                let flags =
                    rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&data.fd, flags, offset, len).map_err(errno)?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.touch();
        Ok(())
    }

    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64, Errno> {
        use rustix::fs::SeekFrom;
        let from = if hole {
            SeekFrom::Hole(offset)
        } else {
            SeekFrom::Data(offset)
        };
        rustix::fs::seek(&self.data()?.fd, from).map_err(errno)
    }

    fn seals(&self, add: Option<u32>) -> Result<u32, Errno> {
        let fd = self.data()?.fd.as_raw_fd();
        // SAFETY: both commands take or give a number only.
        let result = unsafe {
            match add {
                Some(seals) => libc::fcntl(fd, libc::F_ADD_SEALS, seals),
                None => libc::fcntl(fd, libc::F_GET_SEALS),
            }
        };
        u32::try_from(result).map_err(|_| std::io::Error::last_os_error().into())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
