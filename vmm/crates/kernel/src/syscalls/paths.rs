//! What lies at a path: attributes, access, links, the working directory.

use vmm_abi::*;

use crate::args::{Args, DONE, SysResult};
use crate::task::Task;
use crate::vfs::{Bounds, Walked};

const PATH_MAX: usize = 4096;

/// A path in guest memory.
///
/// # Errors
/// EFAULT, ENAMETOOLONG.
pub(super) fn path(task: &Task, address: u64) -> Result<Vec<u8>, Errno> {
    task.memory()
        .read_string(address, PATH_MAX, Errno::ENAMETOOLONG)
}

/// Walks a path relative to a directory descriptor.
///
/// # Errors
/// EBADF, ENOTDIR, and those of [`crate::vfs::Vfs::walk`].
pub(super) fn walk(task: &Task, dirfd: i32, path: &[u8], follow: bool) -> Result<Walked, Errno> {
    walk_bound(task, dirfd, path, follow, Bounds::default())
}

/// As [`walk`], within bounds.
///
/// # Errors
/// As those of [`crate::vfs::Vfs::walk_bound`].
pub(super) fn walk_bound(
    task: &Task,
    dirfd: i32,
    path: &[u8],
    follow: bool,
    bounds: Bounds,
) -> Result<Walked, Errno> {
    let from = if path.starts_with(b"/") && !bounds.in_root {
        Vec::new()
    } else if dirfd == AT_FDCWD {
        task.kernel.cwd.lock().clone()
    } else {
        let open = task.named_file(dirfd)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        open.folder_path()?
    };
    task.kernel.vfs.walk_bound(&from, path, follow, bounds)
}

/// The node that a call names by path, or with AT_EMPTY_PATH by descriptor.
///
/// # Errors
/// As those of [`walk`]; ENOENT for a descriptor without a node.
pub(super) fn node_at(
    task: &Task,
    dirfd: i32,
    address: u64,
    flags: u32,
) -> Result<std::sync::Arc<dyn crate::vfs::Node>, Errno> {
    let name = path(task, address)?;
    if name.is_empty() && flags & AT_EMPTY_PATH != 0 && dirfd != AT_FDCWD {
        return task.named_file(dirfd)?.node.clone().ok_or(Errno::ENOENT);
    }
    let walked = walk(task, dirfd, &name, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    walked.node().cloned()
}

/// Attributes by descriptor, path, or descriptor with AT_EMPTY_PATH.
fn attributes(task: &Task, dirfd: i32, address: u64, flags: u32) -> Result<Stat, Errno> {
    let name = if address == 0 && flags & AT_EMPTY_PATH != 0 {
        Vec::new()
    } else {
        path(task, address)?
    };
    if name.is_empty() && flags & AT_EMPTY_PATH != 0 {
        if dirfd != AT_FDCWD {
            return task.named_file(dirfd)?.file.stat();
        }
        return walk(task, dirfd, b".", true)?.node()?.stat();
    }
    walk(task, dirfd, &name, flags & AT_SYMLINK_NOFOLLOW == 0)?
        .node()?
        .stat()
}

fn put_stat(task: &Task, address: u64, stat: Stat) -> SysResult {
    task.memory().write_value(address, &stat)?;
    DONE
}

/// stat(2)
pub fn stat(task: &mut Task, args: Args) -> SysResult {
    let stat = attributes(task, AT_FDCWD, args.word(0), 0)?;
    put_stat(task, args.word(1), stat)
}

/// lstat(2)
pub fn lstat(task: &mut Task, args: Args) -> SysResult {
    let stat = attributes(task, AT_FDCWD, args.word(0), AT_SYMLINK_NOFOLLOW)?;
    put_stat(task, args.word(1), stat)
}

/// fstat(2)
pub fn fstat(task: &mut Task, args: Args) -> SysResult {
    let stat = task.named_file(args.int(0))?.file.stat()?;
    put_stat(task, args.word(1), stat)
}

/// newfstatat(2)
pub fn fstatat(task: &mut Task, args: Args) -> SysResult {
    const KNOWN: u32 = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
    if args.flags(3) & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let stat = attributes(task, args.int(0), args.word(1), args.flags(3))?;
    put_stat(task, args.word(2), stat)
}

/// statx(2): what STATX_BASIC_STATS asks for, whatever the mask says.
pub fn statx(task: &mut Task, args: Args) -> SysResult {
    const BASIC_STATS: u32 = 0x7ff;
    const RESERVED: u32 = 0x8000_0000;
    const SYNC: u32 = 0x6000;
    const KNOWN: u32 = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | SYNC;
    let (flags, mask) = (args.flags(2), args.flags(3));
    if flags & !KNOWN != 0 || flags & SYNC == SYNC || mask & RESERVED != 0 {
        return Err(Errno::EINVAL);
    }
    let s = attributes(task, args.int(0), args.word(1), args.flags(2))?;
    let time = |t: Timespec| StatxTimestamp {
        seconds: t.seconds,
        nanoseconds: t.nanoseconds as u32,
        reserved: 0,
    };
    let statx = Statx {
        mask: BASIC_STATS,
        blksize: s.blksize as u32,
        nlink: s.nlink as u32,
        uid: s.uid,
        gid: s.gid,
        mode: s.mode as u16,
        ino: s.ino,
        size: s.size as u64,
        blocks: s.blocks as u64,
        atime: time(s.atime),
        ctime: time(s.ctime),
        mtime: time(s.mtime),
        rdev_major: (s.rdev >> 8) as u32,
        rdev_minor: (s.rdev & 0xff) as u32,
        dev_minor: s.dev as u32,
        ..Statx::default()
    };
    task.memory().write_value(args.word(4), &statx)?;
    DONE
}

fn check_access(task: &Task, dirfd: i32, address: u64, mode: i32, flags: u32) -> SysResult {
    if mode & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    const EACCESS: u32 = 0x200;
    if flags & !(EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let stat = attributes(task, dirfd, address, flags & !EACCESS)?;
    // The guest is root: it may read and write whatever the file system allows, and execute where
    // any execute bit is set.
    if mode & libc::X_OK != 0 && stat.mode & S_IFMT == S_IFREG && stat.mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    let read_only = stat.dev != TMP_DEVICE && stat.mode & S_IFMT != S_IFCHR;
    if mode & libc::W_OK != 0 && read_only {
        return Err(Errno::EROFS);
    }
    DONE
}

/// Device number that files of the private /tmp show.
const TMP_DEVICE: u64 = 0x2a;

/// access(2)
pub fn access(task: &mut Task, args: Args) -> SysResult {
    check_access(task, AT_FDCWD, args.word(0), args.int(1), 0)
}

/// faccessat(2)
pub fn faccessat(task: &mut Task, args: Args) -> SysResult {
    check_access(task, args.int(0), args.word(1), args.int(2), 0)
}

/// faccessat2(2)
pub fn faccessat2(task: &mut Task, args: Args) -> SysResult {
    check_access(task, args.int(0), args.word(1), args.int(2), args.flags(3))
}

/// readlink(2)
pub fn readlink(task: &mut Task, args: Args) -> SysResult {
    read_link(task, AT_FDCWD, args.word(0), args.word(1), args.word(2))
}

/// readlinkat(2)
pub fn readlinkat(task: &mut Task, args: Args) -> SysResult {
    read_link(task, args.int(0), args.word(1), args.word(2), args.word(3))
}

fn read_link(task: &Task, dirfd: i32, address: u64, buffer: u64, len: u64) -> SysResult {
    if len == 0 || i64::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    let name = path(task, address)?;
    let target = if name.is_empty() && dirfd != AT_FDCWD {
        // A link opened with O_PATH | O_NOFOLLOW (readlinkat(2)).
        let open = task.named_file(dirfd)?;
        open.node
            .as_ref()
            .ok_or(Errno::ENOENT)?
            .read_link()
            .map_err(|_| Errno::ENOENT)?
    } else {
        walk(task, dirfd, &name, false)?.node()?.read_link()?
    };
    let shown = target
        .get(..target.len().min(len as usize))
        .unwrap_or_default();
    task.memory().write(buffer, shown)?;
    Ok((shown.len() as u64).into())
}

/// getcwd(2): the length with its NUL.
pub fn getcwd(task: &mut Task, args: Args) -> SysResult {
    let mut cwd = task.kernel.cwd.lock().clone();
    cwd.push(0);
    if args.word(1) < cwd.len() as u64 {
        return Err(Errno::ERANGE);
    }
    task.memory().write(args.word(0), &cwd)?;
    Ok((cwd.len() as u64).into())
}

/// chdir(2)
pub fn chdir(task: &mut Task, args: Args) -> SysResult {
    let name = path(task, args.word(0))?;
    let walked = walk(task, AT_FDCWD, &name, true)?;
    if walked.node()?.stat()?.mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    *task.kernel.cwd.lock() = walked.path;
    DONE
}

/// fchdir(2)
pub fn fchdir(task: &mut Task, args: Args) -> SysResult {
    let path = task.named_file(args.int(0))?.folder_path()?;
    *task.kernel.cwd.lock() = path;
    DONE
}

/// umask(2)
pub fn umask(task: &mut Task, args: Args) -> SysResult {
    let old = std::mem::replace(&mut *task.kernel.umask.lock(), args.flags(0) & 0o777);
    Ok(u64::from(old).into())
}
