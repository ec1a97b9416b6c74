//! Descriptors that exist to be waited for: pipes, eventfds, epoll sets.

use std::sync::Arc;

use vmm_abi::*;
use zerocopy::IntoBytes;

use super::transfer::possible_range;
use crate::args::{Args, DONE, Restart, Ret, SysResult, optional_time};
use crate::clock;
use crate::epoll::Epoll;
use crate::eventfd::EventFd;
use crate::file::{File, OpenFile};
use crate::pipe;
use crate::task::Task;

/// Most events of one epoll_wait(2) here; a caller with more asks again.
const MAX_EVENTS: usize = 1024;
/// Most that may be asked for (EP_MAX_EVENTS of Linux).
const MOST_ASKED: usize = i32::MAX as usize / size_of::<EpollEvent>();

fn add(task: &Task, file: Arc<dyn File>, name: String, flags: u32) -> SysResult {
    let open = OpenFile::new(file, name, flags & !O_CLOEXEC);
    task.add_file(open, flags & O_CLOEXEC != 0)
}

/// pipe2(2)
pub fn pipe2(task: &mut Task, args: Args) -> SysResult {
    make_pipe(task, args.word(0), args.flags(1))
}

/// pipe(2)
pub fn pipe_plain(task: &mut Task, args: Args) -> SysResult {
    make_pipe(task, args.word(0), 0)
}

fn make_pipe(task: &mut Task, address: u64, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let ino = pipe::new_ino();
    let (reader, writer) = pipe::pipe(ino);
    let name = format!("pipe:[{ino}]");
    let (cloexec, status) = (flags & O_CLOEXEC != 0, flags & O_NONBLOCK);
    let read = OpenFile::new(reader, name.clone(), status);
    let write = OpenFile::new(writer, name, status | O_WRONLY);
    task.add_two_files((read, write), cloexec, address)
}

/// eventfd2(2)
pub fn eventfd2(task: &mut Task, args: Args) -> SysResult {
    const SEMAPHORE: u32 = 1;
    let flags = args.flags(1);
    if flags & !(SEMAPHORE | O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = EventFd::new(u64::from(args.flags(0)), flags & SEMAPHORE != 0);
    add(
        task,
        file,
        "anon_inode:[eventfd]".into(),
        (flags & !SEMAPHORE) | O_RDWR,
    )
}

/// epoll_create(2): the size says nothing any more, but must not be 0.
pub fn epoll_create(task: &mut Task, args: Args) -> SysResult {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(task, Args::default())
}

/// eventfd(2)
pub fn eventfd(task: &mut Task, args: Args) -> SysResult {
    eventfd2(task, Args([args.word(0), 0, 0, 0, 0, 0]))
}

/// epoll_create1(2)
pub fn epoll_create1(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(0);
    if flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    add(
        task,
        Arc::new(Epoll::new(task.kernel.board.clone())),
        "anon_inode:[eventpoll]".into(),
        flags | O_RDWR,
    )
}

fn with_epoll<T>(
    task: &Task,
    fd: i32,
    action: impl FnOnce(&Epoll) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let open = task.file(fd)?;
    action(
        open.file
            .as_any()
            .downcast_ref::<Epoll>()
            .ok_or(Errno::EINVAL)?,
    )
}

/// epoll_ctl(2)
pub fn epoll_ctl(task: &mut Task, args: Args) -> SysResult {
    let (op, fd) = (args.int(1), args.int(2));
    let event = match op {
        libc::EPOLL_CTL_DEL => EpollEvent::default(),
        _ => task.memory().read_value(args.word(3))?,
    };
    let open = task.file(fd)?;
    if args.int(0) == fd {
        return Err(Errno::EINVAL);
    }
    with_epoll(task, args.int(0), |epoll| match op {
        libc::EPOLL_CTL_ADD => epoll.add(fd, &open, event),
        libc::EPOLL_CTL_MOD => epoll.modify(fd, &open, event),
        libc::EPOLL_CTL_DEL => epoll.remove(fd, &open),
        _ => Err(Errno::EINVAL),
    })?;
    DONE
}

/// epoll_wait(2) and epoll_pwait(2)
pub fn epoll_pwait(task: &mut Task, args: Args) -> SysResult {
    if let Ok(ms) = u64::try_from(args.int(3)) {
        let deadline = clock::monotonic_ns().saturating_add(ms.saturating_mul(1_000_000));
        task.set_deadline(deadline);
    }
    wait(task, args)
}

/// Has a restored thread that stood in epoll_wait(2) or epoll_pwait(2) wait on, without a deadline or a mask: true when whatever ends that is told by a thread
/// of the guest's. No event is taken.
pub fn waits_on(task: &mut Task, args: Args) -> bool {
    if args.int(3) >= 0 || args.word(4) != 0 {
        return false;
    }
    let Ok(open) = task.file(args.int(0)) else {
        return false;
    };
    let Some(epoll) = open.file.as_any().downcast_ref::<Epoll>() else {
        return false;
    };
    if let Some(queue) = epoll.queue() {
        task.watch(queue);
    }
    // Whatever is added from here on wakes it.
    epoll.is_guests_own() && epoll.readiness() == 0
}

/// epoll_wait(2) has no mask.
pub fn epoll_wait(task: &mut Task, args: Args) -> SysResult {
    let Args([a, b, c, d, ..]) = args;
    epoll_pwait(task, Args([a, b, c, d, 0, 0]))
}

/// epoll_pwait2(2)
pub fn epoll_pwait2(task: &mut Task, args: Args) -> SysResult {
    if let Some(timeout) = optional_time(task.memory(), args.word(3))? {
        task.set_deadline(clock::deadline(libc::CLOCK_MONOTONIC, timeout, false)?);
    }
    wait(task, args)
}

fn wait(task: &mut Task, args: Args) -> SysResult {
    let limit = usize::try_from(args.int(2))
        .ok()
        .filter(|n| *n > 0 && *n <= MOST_ASKED)
        .ok_or(Errno::EINVAL)?;
    if args.word(4) != 0 && task.saved_mask.is_none() {
        if args.word(5) != 8 {
            return Err(Errno::EINVAL);
        }
        let mask: u64 = task.memory().read_value(args.word(4))?;
        task.saved_mask = Some(task.mask());
        task.set_mask(mask);
    }
    let bytes = limit.saturating_mul(size_of::<EpollEvent>());
    possible_range(args.word(1), bytes as u64)?;
    let limit = limit.min(MAX_EVENTS);
    let board = task.kernel.board.clone();
    let disturbances = board.disturbances();
    let open = task.file(args.int(0))?;
    let epoll = open
        .file
        .as_any()
        .downcast_ref::<Epoll>()
        .ok_or(Errno::EINVAL)?;
    let mut found = epoll.take(limit);
    if found.events.is_empty() && !task.expired() && task.left_or_forever() {
        if !task.is_watching()
            && let Some(queue) = epoll.queue()
        {
            task.watch(queue);
        }
        epoll.arm_all();
        found = epoll.take(limit);
        if found.events.is_empty() {
            return Ok(Ret::Block(Restart::Never));
        }
    }
    if found.is_calm {
        board.calm(disturbances, args.int(0));
    }
    let events = found.events.as_slice();
    task.memory().write(args.word(1), events.as_bytes())?;
    Ok((events.len() as u64).into())
}
