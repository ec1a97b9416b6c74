//! Reading and writing open files.

use std::sync::Arc;

use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::args::{Args, Restart, Ret, SysResult};
use crate::clock;
use crate::file::{File, OpenFile};
use crate::task::Task;
use crate::wait::WaitQueue;

/// How a call waits for a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// What it waits for, in EPOLL* bits.
    pub events: u32,
    /// Never waits, whatever the description says (MSG_DONTWAIT).
    pub at_once: bool,
    /// Longest wait, in nanoseconds.
    pub timeout_ns: Option<u64>,
}

impl Waiting {
    /// Waits as the description says.
    pub(super) const fn plain(events: u32) -> Self {
        Self {
            events,
            at_once: false,
            timeout_ns: None,
        }
    }
}

/// What an attempt came to.
pub(super) enum Outcome<T> {
    Done(T),
    Block(Restart),
}

/// Asks `attempt`; on EAGAIN registers with the file (and with `also`), asks again, and blocks.
///
/// # Errors
/// EAGAIN when the call may not wait or its time is over, else what the attempt says.
pub(super) fn attempt_or_wait<T>(
    task: &mut Task,
    open: &OpenFile,
    how: Waiting,
    also: Option<&Arc<WaitQueue>>,
    mut attempt: impl FnMut(&AddressSpace) -> Result<T, Errno>,
) -> Result<Outcome<T>, Errno> {
    match attempt(task.memory()) {
        Err(Errno::EAGAIN) if !how.at_once && !open.nonblocking() && !task.expired() => {}
        other => return other.map(Outcome::Done),
    }
    let Some(queue) = open.file.queue() else {
        return Err(Errno::EAGAIN);
    };
    if !task.is_watching() {
        task.watch(queue);
        if let Some(also) = also {
            task.watch(also);
        }
    }
    if let Some(ns) = how.timeout_ns {
        task.set_deadline(clock::monotonic_ns().saturating_add(ns));
    }
    open.file.arm(how.events);
    match attempt(task.memory()) {
        Err(Errno::EAGAIN) if how.timeout_ns.is_some() => Ok(Outcome::Block(Restart::Never)),
        Err(Errno::EAGAIN) => Ok(Outcome::Block(Restart::IfAsked)),
        other => other.map(Outcome::Done),
    }
}

/// As [`attempt_or_wait`] for calls whose answer is a number.
pub(super) fn until_ready(
    task: &mut Task,
    open: &OpenFile,
    how: Waiting,
    attempt: impl FnMut(&AddressSpace) -> Result<u64, Errno>,
) -> SysResult {
    match attempt_or_wait(task, open, how, None, attempt)? {
        Outcome::Done(value) => Ok(value.into()),
        Outcome::Block(restart) => Ok(Ret::Block(restart)),
    }
}

/// Moves all of `list` unless the call may not wait, an error comes or nothing more does: what a blocking
/// write(2) to a pipe or socket does. What has been moved is kept over waits in [`Task::progress`].
pub(super) fn until_all(
    task: &mut Task,
    open: &OpenFile,
    how: Waiting,
    list: &[Iovec],
    mut attempt: impl FnMut(&AddressSpace, &[Iovec]) -> Result<u64, Errno>,
) -> SysResult {
    let total = total(list);
    loop {
        let before = task.progress();
        let rest = rest_of(list, before);
        let moved = match attempt_or_wait(task, open, how, None, |m| attempt(m, &rest)) {
            Ok(Outcome::Done(moved)) => moved,
            Ok(Outcome::Block(restart)) => return Ok(Ret::Block(restart)),
            Err(_) if before > 0 => return Ok(before.into()),
            Err(errno) => return Err(errno),
        };
        let sum = before.saturating_add(moved);
        if moved == 0 || sum >= total || how.at_once || open.nonblocking() {
            return Ok(sum.into());
        }
        task.set_progress(sum);
    }
}

/// Bytes in all ranges.
pub(crate) fn total(list: &[Iovec]) -> u64 {
    list.iter()
        .fold(0, |sum: u64, entry| sum.saturating_add(entry.len))
}

/// The ranges without their first `skip` bytes.
pub(crate) fn rest_of(list: &[Iovec], skip: u64) -> Vec<Iovec> {
    let mut left = skip;
    let cut = |entry: &Iovec| {
        let part = entry.len.min(left);
        left = left.saturating_sub(part);
        Iovec {
            base: entry.base.wrapping_add(part),
            len: entry.len.saturating_sub(part),
        }
    };
    list.iter().map(cut).filter(|entry| entry.len > 0).collect()
}

/// What write(2) does about EPIPE besides telling it.
pub(super) fn broken_pipe(task: &Task) {
    let info = SigInfo {
        signo: SIGPIPE,
        code: SI_USER,
        ..SigInfo::default()
    };
    let _ = task.kernel.send_signal(Some(&task.shared), info);
}

/// Refuses a range of guest memory that no process could have.
pub(super) fn possible_range(address: u64, len: u64) -> Result<(), Errno> {
    const TASK_BYTES: u64 = 1 << 47;
    let end = address.checked_add(len).filter(|end| *end < TASK_BYTES);
    end.map(|_| ()).ok_or(Errno::EFAULT)
}

/// A range of guest memory for read(2) and write(2).
fn user_range(address: u64, len: u64) -> Result<Vec<Iovec>, Errno> {
    possible_range(address, len)?;
    Ok(AddressSpace::single(address, len).to_vec())
}

/// The ranges of readv(2) and writev(2), whose count is an `unsigned int` in the end.
fn user_vectors(task: &Task, args: Args) -> Result<Vec<Iovec>, Errno> {
    let count = u64::from(args.flags(2));
    task.memory().read_iovecs(args.word(1), count)
}

fn transfer(
    task: &mut Task,
    fd: i32,
    list: Result<Vec<Iovec>, Errno>,
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
    let list = &*list?;
    let file = Arc::clone(&open.file);
    let Some(size) = file.size() else {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        if !write {
            let how = Waiting::plain(EPOLLIN);
            return until_ready(task, &open, how, |memory| file.read(memory, list, 0));
        }
        let how = Waiting::plain(EPOLLOUT);
        let result = until_all(task, &open, how, list, |memory, rest| {
            file.write(memory, rest, 0)
        });
        if result == Err(Errno::EPIPE) {
            broken_pipe(task);
        }
        return result;
    };
    if let Some(offset) = offset {
        if i64::try_from(offset).is_err() {
            return Err(Errno::EINVAL);
        }
        // With O_APPEND the offset says nothing (pwrite(2), "Bugs").
        let done = match (write, open.flags() & O_APPEND != 0) {
            (true, true) => write_file(task, &*file, list, size),
            (true, false) => write_file(task, &*file, list, offset),
            (false, _) => file.read(task.memory(), list, offset),
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
        write_file(task, &*file, list, at)?
    } else {
        file.read(task.memory(), list, at)?
    };
    *position = at.saturating_add(done);
    Ok(done.into())
}

/// Writes to a file with positions, up to RLIMIT_FSIZE.
fn write_file(task: &Task, file: &dyn File, list: &[Iovec], at: u64) -> Result<u64, Errno> {
    let limit = task.kernel.limits.lock().soft(libc::RLIMIT_FSIZE);
    let room = limit.saturating_sub(at);
    if total(list) <= room {
        return file.write(task.memory(), list, at);
    }
    if room == 0 {
        file_too_large(task);
        return Err(Errno::EFBIG);
    }
    let mut left = room;
    let cut = |entry: &Iovec| {
        let len = entry.len.min(left);
        left = left.saturating_sub(len);
        Iovec { len, ..*entry }
    };
    let list: Vec<Iovec> = list.iter().map(cut).collect();
    file.write(task.memory(), &list, at)
}

/// What going beyond RLIMIT_FSIZE does besides EFBIG.
pub(super) fn file_too_large(task: &Task) {
    let info = SigInfo {
        signo: SIGXFSZ,
        code: SI_USER,
        ..SigInfo::default()
    };
    let _ = task.kernel.send_signal(Some(&task.shared), info);
}

/// read(2)
pub fn read(task: &mut Task, args: Args) -> SysResult {
    let list = user_range(args.word(1), args.word(2));
    transfer(task, args.int(0), list, None, false)
}

/// write(2)
pub fn write(task: &mut Task, args: Args) -> SysResult {
    let list = user_range(args.word(1), args.word(2));
    transfer(task, args.int(0), list, None, true)
}

/// pread(2)
pub fn pread(task: &mut Task, args: Args) -> SysResult {
    let list = user_range(args.word(1), args.word(2));
    transfer(task, args.int(0), list, Some(args.word(3)), false)
}

/// pwrite(2)
pub fn pwrite(task: &mut Task, args: Args) -> SysResult {
    let list = user_range(args.word(1), args.word(2));
    transfer(task, args.int(0), list, Some(args.word(3)), true)
}

/// readv(2)
pub fn readv(task: &mut Task, args: Args) -> SysResult {
    let list = user_vectors(task, args);
    transfer(task, args.int(0), list, None, false)
}

/// writev(2)
pub fn writev(task: &mut Task, args: Args) -> SysResult {
    let list = user_vectors(task, args);
    transfer(task, args.int(0), list, None, true)
}

/// preadv(2)
pub fn preadv(task: &mut Task, args: Args) -> SysResult {
    let list = user_vectors(task, args);
    transfer(task, args.int(0), list, Some(args.word(3)), false)
}

/// pwritev(2)
pub fn pwritev(task: &mut Task, args: Args) -> SysResult {
    let list = user_vectors(task, args);
    transfer(task, args.int(0), list, Some(args.word(3)), true)
}
