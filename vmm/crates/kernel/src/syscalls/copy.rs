//! Calls that move bytes between files without the guest's memory.

use std::sync::Arc;

use vmm_abi::*;

use super::transfer::{Outcome, Waiting, attempt_or_wait, broken_pipe};
use crate::args::{Args, Restart, Ret, SysResult};
use crate::file::OpenFile;
use crate::pipe::PipeEnd;
use crate::task::Task;

/// Bytes moved at a time, and at most by one call (MAX_RW_COUNT).
const CHUNK: usize = 64 << 10;
const MAX_TOTAL: u64 = 0x7fff_f000;

/// Where a side of the copy stands: in guest memory or in the description.
#[derive(Clone, Copy)]
enum Position {
    Memory(u64),
    Description,
}

impl Position {
    fn of(address: u64) -> Self {
        if address == 0 {
            Self::Description
        } else {
            Self::Memory(address)
        }
    }

    fn get(self, task: &Task, open: &OpenFile) -> Result<u64, Errno> {
        match self {
            Self::Description => Ok(*open.position.lock()),
            Self::Memory(address) => {
                let offset: i64 = task.memory().read_value(address)?;
                u64::try_from(offset).map_err(|_| Errno::EINVAL)
            }
        }
    }

    fn advance(self, task: &Task, open: &OpenFile, by: usize) -> Result<(), Errno> {
        let to = self.get(task, open)?.saturating_add(by as u64);
        match self {
            Self::Description => *open.position.lock() = to,
            Self::Memory(address) => task.memory().write_value(address, &to)?,
        }
        Ok(())
    }
}

fn both(task: &Task, from: i32, to: i32) -> Result<(Arc<OpenFile>, Arc<OpenFile>), Errno> {
    let (from, to) = (task.file(from)?, task.file(to)?);
    if from.readable() && to.writable() {
        Ok((from, to))
    } else {
        Err(Errno::EBADF)
    }
}

fn pipe_end(open: &OpenFile) -> Option<&PipeEnd> {
    open.file.as_any().downcast_ref::<PipeEnd>()
}

/// Copies from a seekable file until `len` bytes have been moved, the source ends or the target may not be
/// waited for. The positions are moved along, so that a signal in between leaves all in order.
fn from_file(
    task: &mut Task,
    (from, at): (&OpenFile, Position),
    (to, to_at): (&OpenFile, Position),
    len: u64,
    at_once: bool,
) -> SysResult {
    let len = len.min(MAX_TOTAL);
    let seekable = to.file.size().is_some();
    let how = Waiting {
        at_once,
        ..Waiting::plain(EPOLLOUT)
    };
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let done = task.progress();
        let wanted = usize::try_from(len.saturating_sub(done)).unwrap_or(CHUNK);
        let part = buffer.get_mut(..wanted.min(CHUNK)).unwrap_or_default();
        let count = from.file.get(part, at.get(task, from)?)?;
        let bytes = part.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(done.into());
        }
        let target = if seekable { to_at.get(task, to)? } else { 0 };
        let moved = match attempt_or_wait(task, to, how, None, |_| to.file.put(bytes, target)) {
            Ok(Outcome::Done(moved)) => moved,
            Ok(Outcome::Block(restart)) => return Ok(Ret::Block(restart)),
            Err(_) if done > 0 => return Ok(done.into()),
            Err(errno) => {
                if errno == Errno::EPIPE {
                    broken_pipe(task);
                }
                return Err(errno);
            }
        };
        at.advance(task, from, moved)?;
        if seekable {
            to_at.advance(task, to, moved)?;
        }
        task.set_progress(done.saturating_add(moved as u64));
    }
}

/// sendfile(2)
pub fn sendfile(task: &mut Task, args: Args) -> SysResult {
    let (from, to) = both(task, args.int(1), args.int(0))?;
    if from.file.size().is_none() || to.flags() & O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let at = Position::of(args.word(2));
    at.get(task, &from)?;
    let target = (&*to, Position::Description);
    from_file(task, (&from, at), target, args.word(3), false)
}

/// copy_file_range(2)
pub fn copy_file_range(task: &mut Task, args: Args) -> SysResult {
    let (from, to) = both(task, args.int(0), args.int(2))?;
    if args.flags(5) != 0 || from.file.size().is_none() || to.file.size().is_none() {
        return Err(Errno::EINVAL);
    }
    if to.flags() & O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    let (at, to_at) = (Position::of(args.word(1)), Position::of(args.word(3)));
    let (start, target) = (at.get(task, &from)?, to_at.get(task, &to)?);
    let len = args.word(4);
    let overlap = target < start.saturating_add(len) && start < target.saturating_add(len);
    if Arc::ptr_eq(&from.file, &to.file) && overlap {
        return Err(Errno::EINVAL);
    }
    from_file(task, (&from, at), (&to, to_at), len, false)
}

/// splice(2)
pub fn splice(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(5);
    check_flags(flags)?;
    let (from, to) = both(task, args.int(0), args.int(2))?;
    let at_once = flags & libc::SPLICE_F_NONBLOCK != 0;
    let (at, to_at) = (args.word(1), args.word(3));
    if (pipe_end(&from).is_some() && at != 0) || (pipe_end(&to).is_some() && to_at != 0) {
        return Err(Errno::ESPIPE);
    }
    match (pipe_end(&from), pipe_end(&to)) {
        (None, Some(_)) if from.file.size().is_some() => {
            let (at, target) = (Position::of(at), (&*to, Position::Description));
            from_file(task, (&from, at), target, args.word(4), at_once)
        }
        (Some(_), _) => {
            let to_at = Position::of(to_at);
            let limit = usize::try_from(args.word(4)).unwrap_or(CHUNK).min(CHUNK);
            from_pipe(task, &from, (&to, to_at), limit, at_once, true)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn check_flags(flags: u32) -> Result<(), Errno> {
    const KNOWN: u32 = 0xf;
    if flags & !KNOWN == 0 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// Moves, or with `take` unset copies, what a pipe holds to another file.
fn from_pipe(
    task: &mut Task,
    from: &OpenFile,
    (to, to_at): (&OpenFile, Position),
    limit: usize,
    at_once: bool,
    take: bool,
) -> SysResult {
    let source = pipe_end(from).ok_or(Errno::EINVAL)?;
    if pipe_end(to).is_some_and(|end| end.same_pipe(source)) {
        return Err(Errno::EINVAL);
    }
    if limit == 0 {
        return Ok(0.into());
    }
    let seekable = to.file.size().is_some();
    let target = if seekable { to_at.get(task, to)? } else { 0 };
    let attempt = || source.pass_on(limit, take, |bytes| to.file.put(bytes, target));
    let mut result = attempt();
    if result == Err(Errno::EAGAIN) && !at_once && !from.nonblocking() && !to.nonblocking() {
        // Whichever of the two is not ready: a change of either is worth another look.
        if !task.is_watching() {
            for open in [from, to] {
                if let Some(queue) = open.file.queue() {
                    task.watch(queue);
                }
            }
        }
        to.file.arm(EPOLLOUT);
        result = attempt();
        if result == Err(Errno::EAGAIN) {
            return Ok(Ret::Block(Restart::IfAsked));
        }
    }
    match result {
        Ok(count) => {
            if seekable {
                to_at.advance(task, to, count)?;
            }
            Ok((count as u64).into())
        }
        Err(errno) => {
            if errno == Errno::EPIPE {
                broken_pipe(task);
            }
            Err(errno)
        }
    }
}

/// tee(2)
pub fn tee(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(3);
    check_flags(flags)?;
    let (from, to) = both(task, args.int(0), args.int(1))?;
    if pipe_end(&to).is_none() {
        return Err(Errno::EINVAL);
    }
    let at_once = flags & libc::SPLICE_F_NONBLOCK != 0;
    let limit = usize::try_from(args.word(2)).unwrap_or(CHUNK).min(CHUNK);
    let target = (&*to, Position::Description);
    from_pipe(task, &from, target, limit, at_once, false)
}
