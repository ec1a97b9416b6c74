//! Calls that name files by path.

use std::sync::Arc;

use vmm_abi::*;

use crate::args::{Args, DONE, SysResult};
use crate::file::OpenFile;
use crate::task::Task;
use crate::vfs::{Node, Walked};

const PATH_MAX: usize = 4096;

pub(super) fn path(task: &Task, address: u64) -> Result<Vec<u8>, Errno> {
    task.memory()
        .read_string(address, PATH_MAX, Errno::ENAMETOOLONG)
}

/// Walks a path relative to a directory descriptor.
pub(super) fn walk(task: &Task, dirfd: i32, path: &[u8], follow: bool) -> Result<Walked, Errno> {
    let from = if path.starts_with(b"/") {
        Vec::new()
    } else if dirfd == AT_FDCWD {
        task.kernel.cwd.lock().clone()
    } else {
        let open = task.file(dirfd)?;
        if !path.is_empty() && open.file.stat()?.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        open.path.as_bytes().to_vec()
    };
    task.kernel.vfs.walk(&from, path, follow)
}

/// open(2)
pub fn open(task: &mut Task, args: Args) -> SysResult {
    open_at(task, AT_FDCWD, args.word(0), args.flags(1), args.flags(2))
}

/// openat(2)
pub fn openat(task: &mut Task, args: Args) -> SysResult {
    open_at(
        task,
        args.int(0),
        args.word(1),
        args.flags(2),
        args.flags(3),
    )
}

fn open_at(task: &mut Task, dirfd: i32, address: u64, flags: u32, mode: u32) -> SysResult {
    if flags & O_TMPFILE == O_TMPFILE {
        return Err(Errno::EOPNOTSUPP);
    }
    let name = path(task, address)?;
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let follow = flags & O_NOFOLLOW == 0 && !exclusive;
    let walked = walk(task, dirfd, &name, follow)?;
    let node = match &walked.node {
        Some(_) if exclusive => return Err(Errno::EEXIST),
        None if flags & O_CREAT != 0 => {
            if walked.directory_wanted {
                return Err(Errno::EISDIR);
            }
            let mode = S_IFREG | (mode & 0o7777 & !*task.kernel.umask.lock());
            walked.parent.create(&walked.name, mode, None)?
        }
        _ => Arc::clone(walked.node()?),
    };
    // A link to an open descriptor (/proc/self/fd/N, /dev/stdout) names the file, not a path.
    if node.stat()?.mode & S_IFMT == S_IFLNK && flags & O_PATH == 0 {
        return Err(Errno::ELOOP);
    }
    let access = if flags & O_PATH != 0 {
        flags & !(O_ACCMODE | O_TRUNC)
    } else {
        flags
    };
    let file = node.open(access)?;
    let path = String::from_utf8_lossy(&walked.path).into_owned();
    let kept = flags & !(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
    let open = OpenFile::new(file, path, kept);
    let fd = task
        .kernel
        .files
        .lock()
        .add(open, flags & O_CLOEXEC != 0, 0)?;
    Ok(u64::from(fd.unsigned_abs()).into())
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
            return task.file(dirfd)?.file.stat();
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
    let stat = task.file(args.int(0))?.file.stat()?;
    put_stat(task, args.word(1), stat)
}

/// newfstatat(2)
pub fn fstatat(task: &mut Task, args: Args) -> SysResult {
    let stat = attributes(task, args.int(0), args.word(1), args.flags(3))?;
    put_stat(task, args.word(2), stat)
}

/// statx(2): what STATX_BASIC_STATS asks for, whatever the mask says.
pub fn statx(task: &mut Task, args: Args) -> SysResult {
    const BASIC_STATS: u32 = 0x7ff;
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
    let stat = attributes(task, dirfd, address, flags)?;
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
    let target = walk(task, dirfd, &name, false)?.node()?.read_link()?;
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

/// umask(2)
pub fn umask(task: &mut Task, args: Args) -> SysResult {
    let old = std::mem::replace(&mut *task.kernel.umask.lock(), args.flags(0) & 0o777);
    Ok(u64::from(old).into())
}

fn make(
    task: &Task,
    dirfd: i32,
    address: u64,
    mode: u32,
    target: Option<&[u8]>,
) -> Result<Arc<dyn Node>, Errno> {
    let name = path(task, address)?;
    let walked = walk(task, dirfd, &name, false)?;
    if walked.node.is_some() {
        return Err(Errno::EEXIST);
    }
    let mode = mode & !*task.kernel.umask.lock();
    walked.parent.create(&walked.name, mode, target)
}

/// mkdir(2)
pub fn mkdir(task: &mut Task, args: Args) -> SysResult {
    make(
        task,
        AT_FDCWD,
        args.word(0),
        S_IFDIR | (args.flags(1) & 0o1777),
        None,
    )?;
    DONE
}

/// mkdirat(2)
pub fn mkdirat(task: &mut Task, args: Args) -> SysResult {
    make(
        task,
        args.int(0),
        args.word(1),
        S_IFDIR | (args.flags(2) & 0o1777),
        None,
    )?;
    DONE
}

/// symlink(2)
pub fn symlink(task: &mut Task, args: Args) -> SysResult {
    let target = path(task, args.word(0))?;
    make(task, AT_FDCWD, args.word(1), 0, Some(&target))?;
    DONE
}

/// symlinkat(2)
pub fn symlinkat(task: &mut Task, args: Args) -> SysResult {
    let target = path(task, args.word(0))?;
    make(task, args.int(1), args.word(2), 0, Some(&target))?;
    DONE
}

fn remove(task: &Task, dirfd: i32, address: u64, directory: bool) -> SysResult {
    let name = path(task, address)?;
    let walked = walk(task, dirfd, &name, false)?;
    walked.node.as_ref().ok_or(Errno::ENOENT)?;
    if walked.name.is_empty() || task.kernel.vfs.mount_points().any(|at| at == walked.path) {
        return Err(Errno::EBUSY);
    }
    walked.parent.remove(&walked.name, directory)?;
    DONE
}

/// unlink(2)
pub fn unlink(task: &mut Task, args: Args) -> SysResult {
    remove(task, AT_FDCWD, args.word(0), false)
}

/// rmdir(2)
pub fn rmdir(task: &mut Task, args: Args) -> SysResult {
    remove(task, AT_FDCWD, args.word(0), true)
}

/// unlinkat(2)
pub fn unlinkat(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(2);
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    remove(task, args.int(0), args.word(1), flags & AT_REMOVEDIR != 0)
}

fn rename_at(task: &Task, from: (i32, u64), to: (i32, u64), keep_existing: bool) -> SysResult {
    let (old, new) = (path(task, from.1)?, path(task, to.1)?);
    let old = walk(task, from.0, &old, false)?;
    let new = walk(task, to.0, &new, false)?;
    old.node()?;
    let mounted = |w: &Walked| task.kernel.vfs.mount_points().any(|at| at == w.path);
    if old.name.is_empty() || new.name.is_empty() || mounted(&old) || mounted(&new) {
        return Err(Errno::EBUSY);
    }
    if keep_existing && new.node.is_some() {
        return Err(Errno::EEXIST);
    }
    old.parent.rename(&old.name, &new.parent, &new.name)?;
    DONE
}

/// rename(2)
pub fn rename(task: &mut Task, args: Args) -> SysResult {
    rename_at(
        task,
        (AT_FDCWD, args.word(0)),
        (AT_FDCWD, args.word(1)),
        false,
    )
}

/// renameat(2)
pub fn renameat(task: &mut Task, args: Args) -> SysResult {
    rename_at(
        task,
        (args.int(0), args.word(1)),
        (args.int(2), args.word(3)),
        false,
    )
}

/// renameat2(2)
pub fn renameat2(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(4);
    if flags & !libc::RENAME_NOREPLACE != 0 {
        return Err(Errno::EINVAL);
    }
    rename_at(
        task,
        (args.int(0), args.word(1)),
        (args.int(2), args.word(3)),
        flags != 0,
    )
}

/// chmod(2)
pub fn chmod(task: &mut Task, args: Args) -> SysResult {
    let name = path(task, args.word(0))?;
    walk(task, AT_FDCWD, &name, true)?
        .node()?
        .set_mode(args.flags(1))?;
    DONE
}

/// fchmodat(2)
pub fn fchmodat(task: &mut Task, args: Args) -> SysResult {
    let name = path(task, args.word(1))?;
    walk(task, args.int(0), &name, true)?
        .node()?
        .set_mode(args.flags(2))?;
    DONE
}

/// truncate(2)
pub fn truncate(task: &mut Task, args: Args) -> SysResult {
    let name = path(task, args.word(0))?;
    let size = u64::try_from(args.signed(1)).map_err(|_| Errno::EINVAL)?;
    walk(task, AT_FDCWD, &name, true)?
        .node()?
        .open(O_WRONLY)?
        .truncate(size)?;
    DONE
}
