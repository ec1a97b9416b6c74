//! flock(2) and the lock commands of fcntl(2).

use std::sync::Arc;

use vmm_abi::*;

use crate::args::{Args, DONE, Restart, Ret, SysResult};
use crate::file::OpenFile;
use crate::locks::{FileId, Range};
use crate::task::Task;

fn file_id(open: &OpenFile) -> Result<FileId, Errno> {
    let stat = open.file.stat()?;
    Ok((stat.dev, stat.ino))
}

/// Asks for a lock; while another has it, waits for one to be given up.
fn acquire(
    task: &mut Task,
    waits: bool,
    mut ask: impl FnMut(&Task) -> Result<(), Errno>,
) -> SysResult {
    match ask(task) {
        Err(Errno::EAGAIN) if waits => {}
        other => return other.and(DONE),
    }
    let queue = Arc::clone(&task.kernel.locks.queue);
    if !task.is_watching() {
        task.watch(&queue);
    }
    match ask(task) {
        Err(Errno::EAGAIN) => Ok(Ret::Block(Restart::IfAsked)),
        other => other.and(DONE),
    }
}

/// flock(2)
pub fn flock(task: &mut Task, args: Args) -> SysResult {
    let operation = args.int(1);
    let lock = match operation & !libc::LOCK_NB {
        libc::LOCK_SH => Some(false),
        libc::LOCK_EX => Some(true),
        libc::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let open = task.file(args.int(0))?;
    let file = file_id(&open)?;
    let waits = operation & libc::LOCK_NB == 0;
    acquire(task, waits, |task| {
        let locks = &task.kernel.locks;
        locks.lock_whole(file, open.keep_locks_in(locks), lock)
    })
}

/// Whether fcntl(2) leaves a command to [`fcntl`].
pub(super) fn is_command(command: i32) -> bool {
    matches!(
        command,
        libc::F_SETLK
            | libc::F_SETLKW
            | libc::F_GETLK
            | libc::F_OFD_SETLK
            | libc::F_OFD_SETLKW
            | libc::F_OFD_GETLK
    )
}

/// The lock commands. The process's own locks (F_SETLK) exclude nobody, since no other process is there; they wait for
/// those of descriptions.
pub(super) fn fcntl(task: &mut Task, fd: i32, command: i32, address: u64) -> SysResult {
    let open = task.file(fd)?;
    let wanted: Flock = task.memory().read_value(address)?;
    let of_description = matches!(
        command,
        libc::F_OFD_SETLK | libc::F_OFD_SETLKW | libc::F_OFD_GETLK
    );
    let range = range(&open, &wanted)?;
    if of_description && wanted.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let file = file_id(&open)?;
    let locks = Arc::clone(&task.kernel.locks);
    if matches!(command, libc::F_GETLK | libc::F_OFD_GETLK) {
        if i32::from(wanted.kind) == libc::F_UNLCK {
            return Err(Errno::EINVAL);
        }
        let owner = of_description.then(|| open.keep_locks_in(&locks));
        let shown = match locks.in_the_way(file, owner, range) {
            Some(other) => shown(other),
            None => Flock {
                kind: libc::F_UNLCK as i16,
                ..wanted
            },
        };
        task.memory().write_value(address, &shown)?;
        return DONE;
    }
    let (read, write) = match i32::from(wanted.kind) {
        libc::F_RDLCK => (true, false),
        libc::F_WRLCK => (false, true),
        _ => (false, false),
    };
    if (read && !open.readable()) || (write && !open.writable()) {
        return Err(Errno::EBADF);
    }
    let waits = matches!(command, libc::F_SETLKW | libc::F_OFD_SETLKW);
    let locking = read || write;
    acquire(task, waits, |_| match (of_description, locking) {
        (true, true) => locks.lock_range(file, open.keep_locks_in(&locks), range),
        (true, false) => locks.unlock_range(file, open.keep_locks_in(&locks), range),
        (false, true) if locks.in_the_way(file, None, range).is_some() => Err(Errno::EAGAIN),
        (false, _) => Ok(()),
    })
}

/// The bytes a lock is about.
fn range(open: &OpenFile, wanted: &Flock) -> Result<Range, Errno> {
    let exclusive = match i32::from(wanted.kind) {
        libc::F_WRLCK => true,
        libc::F_RDLCK | libc::F_UNLCK => false,
        _ => return Err(Errno::EINVAL),
    };
    let base = match i32::from(wanted.whence) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *open.position.lock(),
        libc::SEEK_END => open.file.size().unwrap_or(0),
        _ => return Err(Errno::EINVAL),
    };
    let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
    let start = base.checked_add(wanted.start).ok_or(Errno::EOVERFLOW)?;
    // A negative length names the bytes before the start.
    let (first, behind) = match wanted.len {
        ..0 => (start.checked_add(wanted.len), Some(start)),
        0 => (Some(start), None),
        len => {
            let behind = start.checked_add(len.saturating_sub(1));
            let behind = behind.ok_or(Errno::EOVERFLOW)?;
            (Some(start), Some(behind.saturating_add(1)))
        }
    };
    let unsigned = |value: i64| u64::try_from(value).map_err(|_| Errno::EINVAL);
    Ok(Range {
        first: unsigned(first.ok_or(Errno::EINVAL)?)?,
        last: match behind {
            Some(behind) => unsigned(behind)?.saturating_sub(1),
            None => u64::MAX,
        },
        exclusive,
    })
}

fn shown(other: Range) -> Flock {
    let kind = if other.exclusive {
        libc::F_WRLCK
    } else {
        libc::F_RDLCK
    };
    let len = match other.last {
        u64::MAX => 0,
        last => last.saturating_sub(other.first).saturating_add(1),
    };
    Flock {
        kind: kind as i16,
        whence: libc::SEEK_SET as i16,
        start: i64::try_from(other.first).unwrap_or(i64::MAX),
        len: i64::try_from(len).unwrap_or(0),
        // The lock is a description's, not a process's.
        pid: -1,
        ..Flock::default()
    }
}
