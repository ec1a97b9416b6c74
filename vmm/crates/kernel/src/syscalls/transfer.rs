//! Reading and writing open files.

use std::sync::Arc;

use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::args::{Args, Restart, Ret, SysResult};
use crate::file::OpenFile;
use crate::task::Task;

/// Asks `attempt` until it has something else to say than EAGAIN, blocking the task between.
///
/// # Errors
/// EAGAIN for a description with O_NONBLOCK, else what the attempt says.
pub(super) fn until_ready(
    task: &mut Task,
    open: &Arc<OpenFile>,
    events: u32,
    attempt: impl Fn(&AddressSpace) -> Result<u64, Errno>,
) -> SysResult {
    match attempt(task.memory()) {
        Err(Errno::EAGAIN) if !open.nonblocking() => {}
        other => return other.map(Into::into),
    }
    let Some(queue) = open.file.queue() else {
        return Err(Errno::EAGAIN);
    };
    if !task.is_watching() {
        task.watch(queue);
    }
    open.file.arm(events);
    match attempt(task.memory()) {
        Err(Errno::EAGAIN) => Ok(Ret::Block(Restart::IfAsked)),
        other => other.map(Into::into),
    }
}

fn transfer(
    task: &mut Task,
    fd: i32,
    list: &[Iovec],
    offset: Option<u64>,
    write: bool,
) -> SysResult {
    let open = task.file(fd)?;
    if if write {
        !open.writable()
    } else {
        !open.readable()
    } {
        return Err(Errno::EBADF);
    }
    let file = Arc::clone(&open.file);
    let Some(size) = file.size() else {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        let events = if write { EPOLLOUT } else { EPOLLIN };
        let result = until_ready(task, &open, events, |memory| {
            if write {
                file.write(memory, list, 0)
            } else {
                file.read(memory, list, 0)
            }
        });
        if write && result == Err(Errno::EPIPE) {
            let info = SigInfo {
                signo: SIGPIPE,
                code: SI_USER,
                ..SigInfo::default()
            };
            let _ = task.kernel.send_signal(Some(&task.shared), info);
        }
        return result;
    };
    let memory = task.memory();
    if let Some(offset) = offset {
        if i64::try_from(offset).is_err() {
            return Err(Errno::EINVAL);
        }
        let done = if write {
            file.write(memory, list, offset)
        } else {
            file.read(memory, list, offset)
        };
        return done.map(Into::into);
    }
    let mut position = open.position.lock();
    let at = if write && open.flags() & O_APPEND != 0 {
        size
    } else {
        *position
    };
    let done = if write {
        file.write(memory, list, at)?
    } else {
        file.read(memory, list, at)?
    };
    *position = at.saturating_add(done);
    Ok(done.into())
}

/// read(2)
pub fn read(task: &mut Task, args: Args) -> SysResult {
    transfer(
        task,
        args.int(0),
        &AddressSpace::single(args.word(1), args.word(2)),
        None,
        false,
    )
}

/// write(2)
pub fn write(task: &mut Task, args: Args) -> SysResult {
    transfer(
        task,
        args.int(0),
        &AddressSpace::single(args.word(1), args.word(2)),
        None,
        true,
    )
}

/// pread(2)
pub fn pread(task: &mut Task, args: Args) -> SysResult {
    let list = AddressSpace::single(args.word(1), args.word(2));
    transfer(task, args.int(0), &list, Some(args.word(3)), false)
}

/// pwrite(2)
pub fn pwrite(task: &mut Task, args: Args) -> SysResult {
    let list = AddressSpace::single(args.word(1), args.word(2));
    transfer(task, args.int(0), &list, Some(args.word(3)), true)
}

/// readv(2)
pub fn readv(task: &mut Task, args: Args) -> SysResult {
    let list = task.memory().read_iovecs(args.word(1), args.word(2))?;
    transfer(task, args.int(0), &list, None, false)
}

/// writev(2)
pub fn writev(task: &mut Task, args: Args) -> SysResult {
    let list = task.memory().read_iovecs(args.word(1), args.word(2))?;
    transfer(task, args.int(0), &list, None, true)
}

/// preadv(2)
pub fn preadv(task: &mut Task, args: Args) -> SysResult {
    let list = task.memory().read_iovecs(args.word(1), args.word(2))?;
    transfer(task, args.int(0), &list, Some(args.word(3)), false)
}

/// pwritev(2)
pub fn pwritev(task: &mut Task, args: Args) -> SysResult {
    let list = task.memory().read_iovecs(args.word(1), args.word(2))?;
    transfer(task, args.int(0), &list, Some(args.word(3)), true)
}
