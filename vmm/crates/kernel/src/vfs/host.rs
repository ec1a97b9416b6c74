//! Folders of the host, read-only, as one tree: several are laid over each other, the first on top.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, readlinkat, statat};
use vmm_abi::{
    Errno, Iovec, O_ACCMODE, O_CREAT, O_DIRECTORY, O_TRUNC, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
    Stat, Timespec,
};
use vmm_memory::AddressSpace;

use super::{DirEntry, Node};
use crate::file::File;

/// A file or folder of the host. A folder may stand for several that are laid over each other.
pub struct HostNode {
    stat: Stat,
    /// Open folders, uppermost first; empty for anything but a folder.
    folders: Vec<Arc<OwnedFd>>,
    /// For anything but a folder: where it was found. Never the guest's word but a checked name.
    place: Option<(Arc<OwnedFd>, CString)>,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

/// A guest sees an image that belongs to root, whatever owns its files on the host.
pub(super) fn convert(stat: &rustix::fs::Stat) -> Stat {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        seconds,
        nanoseconds: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Stat {
        dev: 0x1d,
        ino: stat.st_ino,
        nlink: stat.st_nlink,
        mode: stat.st_mode,
        size: stat.st_size,
        blksize: 4096,
        blocks: stat.st_blocks,
        atime: time(stat.st_mtime, stat.st_mtime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        ..Stat::default()
    }
}

impl HostNode {
    /// Opens folders once, by path; everything below is reached from these descriptors only.
    ///
    /// # Errors
    /// What the host says of the first that cannot be opened, or ENOENT for an empty list.
    pub fn open_folders(paths: &[impl AsRef<Path>]) -> Result<Arc<dyn Node>, Errno> {
        let mut folders = Vec::new();
        for path in paths {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path.as_ref(), flags, Mode::empty()).map_err(errno)?;
            folders.push(Arc::new(fd));
        }
        let top = folders.first().ok_or(Errno::ENOENT)?;
        let stat = convert(&rustix::fs::fstat(top).map_err(errno)?);
        Ok(Arc::new(Self {
            stat,
            folders,
            place: None,
        }))
    }

    /// Opens one file of the host by path, to be mounted somewhere.
    ///
    /// # Errors
    /// What the host says.
    pub fn open_file(path: &Path) -> Result<Arc<dyn Node>, Errno> {
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let name = path.file_name().ok_or(Errno::EISDIR)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = Arc::new(rustix::fs::open(folder, flags, Mode::empty()).map_err(errno)?);
        let stat = statat(&fd, name, AtFlags::empty()).map_err(errno)?;
        let name = CString::new(name.as_encoded_bytes()).map_err(|_| Errno::ENOENT)?;
        Ok(Arc::new(Self {
            stat: convert(&stat),
            folders: Vec::new(),
            place: Some((fd, name)),
        }))
    }
}

impl Node for HostNode {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.stat)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        if self.folders.is_empty() {
            return Err(Errno::ENOTDIR);
        }
        let name = CString::new(name).map_err(|_| Errno::ENOENT)?;
        let mut found: Option<Stat> = None;
        let mut folders = Vec::new();
        for folder in &self.folders {
            let stat = match statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => convert(&stat),
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(errno(error)),
            };
            let is_folder = stat.mode & S_IFMT == S_IFDIR;
            if !is_folder && found.is_none() {
                let place = Some((Arc::clone(folder), name));
                return Ok(Arc::new(Self {
                    stat,
                    folders: Vec::new(),
                    place,
                }));
            }
            if !is_folder {
                break;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(folder, &name, flags, Mode::empty()).map_err(errno)?;
            folders.push(Arc::new(fd));
            found.get_or_insert(stat);
        }
        let stat = found.ok_or(Errno::ENOENT)?;
        Ok(Arc::new(Self {
            stat,
            folders,
            place: None,
        }))
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        if self.stat.mode & S_IFMT != S_IFLNK {
            return Err(Errno::EINVAL);
        }
        let (folder, name) = self.place.as_ref().ok_or(Errno::EINVAL)?;
        readlinkat(folder, name, Vec::new())
            .map(CString::into_bytes)
            .map_err(errno)
    }

    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        match self.stat.mode & S_IFMT {
            S_IFDIR => {
                if flags & (O_ACCMODE | O_CREAT | O_TRUNC) != 0 {
                    return Err(Errno::EISDIR);
                }
                Ok(Arc::new(HostFolder {
                    stat: self.stat,
                    folders: self.folders.clone(),
                }))
            }
            _ if flags & O_DIRECTORY != 0 => Err(Errno::ENOTDIR),
            S_IFREG => {
                if flags & (O_ACCMODE | O_TRUNC) != 0 {
                    return Err(Errno::EROFS);
                }
                let (folder, name) = self.place.as_ref().ok_or(Errno::ENOENT)?;
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = openat(folder, name, flags, Mode::empty()).map_err(errno)?;
                Ok(Arc::new(HostFile {
                    fd,
                    stat: self.stat,
                }))
            }
            // A device or pipe in an image is never opened: it would reach the host's.
            _ => Err(Errno::ENXIO),
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// An open read-only file of the host.
#[derive(Debug)]
pub struct HostFile {
    fd: OwnedFd,
    stat: Stat,
}

impl File for HostFile {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.stat)
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], offset: u64) -> Result<u64, Errno> {
        read_at(self.fd.as_fd(), memory, to, offset)
    }

    fn get(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pread(&self.fd, bytes, offset).map_err(errno)
    }

    fn size(&self) -> Option<u64> {
        u64::try_from(self.stat.size).ok()
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Reads a seekable host file straight into guest memory; the host checks the pages.
pub(super) fn read_at(
    fd: BorrowedFd<'_>,
    memory: &AddressSpace,
    to: &[Iovec],
    offset: u64,
) -> Result<u64, Errno> {
    let list = memory.host_iovecs(to)?;
    let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let count = i32::try_from(list.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: every range lies in the guest window, which no Rust reference points into.
    let result = unsafe { libc::preadv(fd.as_raw_fd(), list.as_ptr(), count, offset) };
    u64::try_from(result).map_err(|_| std::io::Error::last_os_error().into())
}

/// Writes guest memory straight to a seekable host file.
pub(super) fn write_at(
    fd: BorrowedFd<'_>,
    memory: &AddressSpace,
    from: &[Iovec],
    offset: u64,
) -> Result<u64, Errno> {
    let list = memory.host_iovecs(from)?;
    let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let count = i32::try_from(list.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: as in `read_at`.
    let result = unsafe { libc::pwritev(fd.as_raw_fd(), list.as_ptr(), count, offset) };
    u64::try_from(result).map_err(|_| std::io::Error::last_os_error().into())
}

struct HostFolder {
    stat: Stat,
    folders: Vec<Arc<OwnedFd>>,
}

impl File for HostFolder {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.stat)
    }

    fn read(&self, _: &AddressSpace, _: &[Iovec], _: u64) -> Result<u64, Errno> {
        Err(Errno::EISDIR)
    }

    fn entries(&self) -> Result<Vec<DirEntry>, Errno> {
        let mut list: Vec<DirEntry> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut buffer = Vec::with_capacity(32 << 10);
        for folder in &self.folders {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = openat(folder, ".", flags, Mode::empty()).map_err(errno)?;
            let mut raw = RawDir::new(fd, buffer.spare_capacity_mut());
            while let Some(entry) = raw.next() {
                let entry = entry.map_err(errno)?;
                let name = entry.file_name().to_bytes().to_vec();
                if name == b"." || name == b".." || !seen.insert(name.clone()) {
                    continue;
                }
                let kind = (entry.file_type().as_raw_mode() >> 12) as u8;
                list.push(DirEntry {
                    name,
                    ino: entry.ino(),
                    kind,
                });
            }
        }
        Ok(list)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
