//! Calls that change what a file is: mode, owner, times, size.

use std::sync::Arc;

use vmm_abi::*;

use super::paths::{node_at, path};
use crate::args::{Args, DONE, SysResult};
use crate::clock;
use crate::task::Task;
use crate::vfs::Node;

/// The node of an open file.
fn node_of(task: &Task, fd: i32) -> Result<Option<Arc<dyn Node>>, Errno> {
    Ok(task.file(fd)?.node.clone())
}

/// chmod(2)
pub fn chmod(task: &mut Task, args: Args) -> SysResult {
    node_at(task, AT_FDCWD, args.word(0), 0)?.set_mode(args.flags(1))?;
    DONE
}

/// fchmodat(2)
pub fn fchmodat(task: &mut Task, args: Args) -> SysResult {
    node_at(task, args.int(0), args.word(1), 0)?.set_mode(args.flags(2))?;
    DONE
}

/// fchmod(2): of a file without a place in the tree it has no effect.
pub fn fchmod(task: &mut Task, args: Args) -> SysResult {
    if let Some(node) = node_of(task, args.int(0))? {
        node.set_mode(args.flags(1))?;
    }
    DONE
}

/// All files belong to root, the guest: only that may be asked for (-1 leaves it).
fn own(node: Option<&Arc<dyn Node>>, user: u32, group: u32) -> SysResult {
    if [user, group].iter().any(|id| *id != 0 && *id != u32::MAX) {
        return Err(Errno::EPERM);
    }
    match node {
        // Who may not change a file may not change its owner either.
        Some(node) if user != u32::MAX || group != u32::MAX => node.set_times(None, None)?,
        _ => {}
    }
    DONE
}

/// chown(2)
pub fn chown(task: &mut Task, args: Args) -> SysResult {
    let node = node_at(task, AT_FDCWD, args.word(0), 0)?;
    own(Some(&node), args.flags(1), args.flags(2))
}

/// lchown(2)
pub fn lchown(task: &mut Task, args: Args) -> SysResult {
    let node = node_at(task, AT_FDCWD, args.word(0), AT_SYMLINK_NOFOLLOW)?;
    own(Some(&node), args.flags(1), args.flags(2))
}

/// fchown(2)
pub fn fchown(task: &mut Task, args: Args) -> SysResult {
    let node = node_of(task, args.int(0))?;
    own(node.as_ref(), args.flags(1), args.flags(2))
}

/// fchownat(2)
pub fn fchownat(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(4);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let node = node_at(task, args.int(0), args.word(1), flags)?;
    own(Some(&node), args.flags(2), args.flags(3))
}

/// A time as utimensat(2) takes it: `None` for UTIME_OMIT.
fn wanted(time: Timespec) -> Result<Option<Timespec>, Errno> {
    match time.nanoseconds {
        libc::UTIME_OMIT => Ok(None),
        libc::UTIME_NOW => Ok(Some(Timespec::from_ns(clock::realtime_ns()))),
        0..1_000_000_000 => Ok(Some(time)),
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(node: Option<&Arc<dyn Node>>, times: Option<[Timespec; 2]>) -> SysResult {
    let now = Timespec {
        seconds: 0,
        nanoseconds: libc::UTIME_NOW,
    };
    let [atime, mtime] = times.unwrap_or([now, now]);
    let (atime, mtime) = (wanted(atime)?, wanted(mtime)?);
    match node {
        Some(node) if atime.is_some() || mtime.is_some() => node.set_times(atime, mtime)?,
        _ => {}
    }
    DONE
}

/// utimensat(2)
pub fn utimensat(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let times = match args.word(2) {
        0 => None,
        address => {
            let pair: [i64; 4] = task.memory().read_value(address)?;
            let [a, a_ns, m, m_ns] = pair;
            let time = |seconds, nanoseconds| Timespec {
                seconds,
                nanoseconds,
            };
            Some([time(a, a_ns), time(m, m_ns)])
        }
    };
    let node = if args.word(1) == 0 {
        node_of(task, args.int(0))?
    } else {
        Some(node_at(task, args.int(0), args.word(1), flags)?)
    };
    set_times(node.as_ref(), times)
}

/// utimes(2)
pub fn utimes(task: &mut Task, args: Args) -> SysResult {
    micro_times(task, AT_FDCWD, args.word(0), args.word(1))
}

/// futimesat(2)
pub fn futimesat(task: &mut Task, args: Args) -> SysResult {
    micro_times(task, args.int(0), args.word(1), args.word(2))
}

fn micro_times(task: &Task, dirfd: i32, name: u64, address: u64) -> SysResult {
    let times = match address {
        0 => None,
        address => {
            let [a, a_us, m, m_us]: [i64; 4] = task.memory().read_value(address)?;
            let time = |seconds, us: i64| match us {
                0..1_000_000 => Ok(Timespec {
                    seconds,
                    nanoseconds: us.saturating_mul(1000),
                }),
                _ => Err(Errno::EINVAL),
            };
            Some([time(a, a_us)?, time(m, m_us)?])
        }
    };
    if name == 0 && dirfd != AT_FDCWD {
        return set_times(task.named_file(dirfd)?.node.as_ref(), times);
    }
    set_times(Some(&node_at(task, dirfd, name, 0)?), times)
}

/// utime(2)
pub fn utime(task: &mut Task, args: Args) -> SysResult {
    let times = match args.word(1) {
        0 => None,
        address => {
            let pair: [i64; 2] = task.memory().read_value(address)?;
            Some(pair.map(|seconds| Timespec {
                seconds,
                nanoseconds: 0,
            }))
        }
    };
    set_times(Some(&node_at(task, AT_FDCWD, args.word(0), 0)?), times)
}

/// truncate(2)
pub fn truncate(task: &mut Task, args: Args) -> SysResult {
    let size = u64::try_from(args.signed(1)).map_err(|_| Errno::EINVAL)?;
    // The path comes first in what is checked.
    path(task, args.word(0))?;
    let node = node_at(task, AT_FDCWD, args.word(0), 0)?;
    node.open(O_WRONLY)?.truncate(size)?;
    DONE
}
