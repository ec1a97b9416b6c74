//! Calls that make, remove and change names.

use std::sync::Arc;

use vmm_abi::*;

use super::paths::{node_at, path, walk};
use crate::args::{Args, DONE, SysResult};
use crate::task::Task;
use crate::vfs::{Node, Walked};

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
    if walked.directory_wanted && mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOENT);
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
    symlink_at(task, args.word(0), AT_FDCWD, args.word(1))?;
    DONE
}

/// symlinkat(2)
pub fn symlinkat(task: &mut Task, args: Args) -> SysResult {
    symlink_at(task, args.word(0), args.int(1), args.word(2))?;
    DONE
}

fn symlink_at(task: &Task, target: u64, dirfd: i32, address: u64) -> Result<(), Errno> {
    let target = path(task, target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    make(task, dirfd, address, 0, Some(&target))?;
    Ok(())
}

/// mknod(2)
pub fn mknod(task: &mut Task, args: Args) -> SysResult {
    make_special(task, AT_FDCWD, args.word(0), args.flags(1))
}

/// mknodat(2)
pub fn mknodat(task: &mut Task, args: Args) -> SysResult {
    make_special(task, args.int(0), args.word(1), args.flags(2))
}

fn make_special(task: &Task, dirfd: i32, address: u64, mode: u32) -> SysResult {
    let kind = match mode & S_IFMT {
        0 | S_IFREG => S_IFREG,
        kind @ (S_IFIFO | S_IFSOCK) => kind,
        S_IFCHR | S_IFBLK | S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make(task, dirfd, address, kind | (mode & 0o7777), None)?;
    DONE
}

/// link(2)
pub fn link(task: &mut Task, args: Args) -> SysResult {
    let from = (AT_FDCWD, args.word(0));
    link_at(task, from, (AT_FDCWD, args.word(1)), 0)
}

/// linkat(2)
pub fn linkat(task: &mut Task, args: Args) -> SysResult {
    let from = (args.int(0), args.word(1));
    link_at(task, from, (args.int(2), args.word(3)), args.flags(4))
}

fn link_at(task: &Task, from: (i32, u64), to: (i32, u64), flags: u32) -> SysResult {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = if flags & AT_SYMLINK_FOLLOW != 0 {
        0
    } else {
        AT_SYMLINK_NOFOLLOW
    };
    let node = node_at(task, from.0, from.1, follow | (flags & AT_EMPTY_PATH))?;
    let name = path(task, to.1)?;
    let walked = walk(task, to.0, &name, false)?;
    if walked.node.is_some() {
        return Err(Errno::EEXIST);
    }
    walked.parent.link(&walked.name, &node)?;
    DONE
}

/// The last component of a path, when it is `.` or `..`.
fn dots(path: &[u8]) -> Option<&[u8]> {
    let last = path
        .split(|byte| *byte == b'/')
        .rfind(|part| !part.is_empty())?;
    (last == b"." || last == b"..").then_some(last)
}

fn is_mounted(task: &Task, walked: &Walked) -> bool {
    task.kernel.vfs.mount_points().any(|at| at == walked.path)
}

fn remove(task: &Task, dirfd: i32, address: u64, directory: bool) -> SysResult {
    let name = path(task, address)?;
    let walked = walk(task, dirfd, &name, false)?;
    let node = walked.node.as_ref().ok_or(Errno::ENOENT)?;
    match dots(&name) {
        Some(b".") if directory => return Err(Errno::EINVAL),
        Some(_) if directory => return Err(Errno::ENOTEMPTY),
        Some(_) => return Err(Errno::EISDIR),
        None => {}
    }
    if walked.name.is_empty() || is_mounted(task, &walked) {
        return Err(Errno::EBUSY);
    }
    if walked.directory_wanted && node.stat()?.mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR);
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

fn rename_at(task: &Task, from: (i32, u64), to: (i32, u64), flags: u32) -> SysResult {
    const KNOWN: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    if flags & !KNOWN != 0 || flags == KNOWN {
        return Err(Errno::EINVAL);
    }
    let (old_path, new_path) = (path(task, from.1)?, path(task, to.1)?);
    let old = walk(task, from.0, &old_path, false)?;
    let new = walk(task, to.0, &new_path, false)?;
    let dotted = dots(&old_path).is_some() || dots(&new_path).is_some();
    let unnamed = old.name.is_empty() || new.name.is_empty();
    if dotted || unnamed || is_mounted(task, &old) || is_mounted(task, &new) {
        return Err(Errno::EBUSY);
    }
    let node = old.node.as_ref().ok_or(Errno::ENOENT)?;
    let is_folder = node.stat()?.mode & S_IFMT == S_IFDIR;
    if !is_folder && (old.directory_wanted || new.directory_wanted) {
        return Err(Errno::ENOTDIR);
    }
    if flags & libc::RENAME_NOREPLACE != 0 && new.node.is_some() {
        return Err(Errno::EEXIST);
    }
    if flags & libc::RENAME_EXCHANGE != 0 {
        new.node.as_ref().ok_or(Errno::ENOENT)?;
        old.parent.exchange(&old.name, &new.parent, &new.name)?;
    } else {
        old.parent.rename(&old.name, &new.parent, &new.name)?;
    }
    DONE
}

/// rename(2)
pub fn rename(task: &mut Task, args: Args) -> SysResult {
    let from = (AT_FDCWD, args.word(0));
    rename_at(task, from, (AT_FDCWD, args.word(1)), 0)
}

/// renameat(2)
pub fn renameat(task: &mut Task, args: Args) -> SysResult {
    let from = (args.int(0), args.word(1));
    rename_at(task, from, (args.int(2), args.word(3)), 0)
}

/// renameat2(2)
pub fn renameat2(task: &mut Task, args: Args) -> SysResult {
    let from = (args.int(0), args.word(1));
    rename_at(task, from, (args.int(2), args.word(3)), args.flags(4))
}
