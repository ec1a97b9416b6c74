//! Waiting for several files at once.

use std::sync::Arc;

use vmm_abi::*;
use zerocopy::IntoBytes;

use crate::args::{Args, Restart, Ret, SysResult, optional_time};
use crate::clock;
use crate::file::{MAX_FDS, OpenFile};
use crate::task::Task;

/// poll(2)
pub fn poll(task: &mut Task, args: Args) -> SysResult {
    let timeout_ms = args.int(2);
    if let Ok(ms) = u64::try_from(timeout_ms) {
        let deadline = clock::monotonic_ns().saturating_add(ms.saturating_mul(1_000_000));
        task.set_deadline(deadline);
    }
    wait(task, args.word(0), args.flags(1))
}

/// ppoll(2)
pub fn ppoll(task: &mut Task, args: Args) -> SysResult {
    if let Some(timeout) = optional_time(task.memory(), args.word(2))? {
        task.set_deadline(clock::deadline(libc::CLOCK_MONOTONIC, timeout, false)?);
    }
    if args.word(3) != 0 && task.saved_mask.is_none() {
        if args.word(4) != 8 {
            return Err(Errno::EINVAL);
        }
        let mask: u64 = task.memory().read_value(args.word(3))?;
        task.saved_mask = Some(task.mask());
        task.set_mask(mask);
    }
    wait(task, args.word(0), args.flags(1))
}

fn wait(task: &mut Task, address: u64, count: u32) -> SysResult {
    if count as usize > MAX_FDS {
        return Err(Errno::EINVAL);
    }
    let mut list = vec![PollFd::default(); count as usize];
    task.memory()
        .read(address, list.as_mut_slice().as_mut_bytes())?;
    if let Some(restart) = wait_for(task, &mut list) {
        return Ok(Ret::Block(restart));
    }
    task.memory().write(address, list.as_slice().as_bytes())?;
    let ready = list.iter().filter(|entry| entry.revents != 0).count();
    Ok((ready as u64).into())
}

/// Looks at all files of the list, and registers with them when nothing is there and time is left: the call
/// is to block then.
fn wait_for(task: &mut Task, list: &mut [PollFd]) -> Option<Restart> {
    let files: Vec<Option<Arc<OpenFile>>> =
        list.iter().map(|entry| task.file(entry.fd).ok()).collect();
    if look(list, &files) > 0 || task.expired() || !task.left_or_forever() {
        return None;
    }
    let first = !task.is_watching();
    for (entry, open) in list.iter().zip(&files) {
        let Some(open) = open else { continue };
        if let Some(queue) = open.file.queue() {
            if first {
                task.watch(queue);
            }
            open.file.arm(u32::from(entry.events as u16));
        }
    }
    (look(list, &files) == 0).then_some(Restart::Never)
}

/// select(2)
pub fn select(task: &mut Task, args: Args) -> SysResult {
    let timeout = match args.word(4) {
        0 => None,
        address => {
            let time: Timeval = task.memory().read_value(address)?;
            let carry = time.microseconds / 1_000_000;
            Some(Timespec {
                seconds: time.seconds.checked_add(carry).ok_or(Errno::EINVAL)?,
                nanoseconds: (time.microseconds % 1_000_000).saturating_mul(1000),
            })
        }
    };
    let result = select_with(task, args, timeout);
    if let Ok(Ret::Value(_)) = result
        && args.word(4) != 0
    {
        let left = task.left_ns() / 1000;
        let left = [left / 1_000_000, left % 1_000_000];
        task.memory().write_value(args.word(4), &left)?;
    }
    result
}

/// pselect6(2): the last argument points to the address and size of a signal mask.
pub fn pselect6(task: &mut Task, args: Args) -> SysResult {
    if args.word(5) != 0 && task.saved_mask.is_none() {
        let [address, size]: [u64; 2] = task.memory().read_value(args.word(5))?;
        if address != 0 {
            if size != 8 {
                return Err(Errno::EINVAL);
            }
            let mask: u64 = task.memory().read_value(address)?;
            task.saved_mask = Some(task.mask());
            task.set_mask(mask);
        }
    }
    let timeout = optional_time(task.memory(), args.word(4))?;
    let result = select_with(task, args, timeout);
    if let Ok(Ret::Value(_)) = result
        && args.word(4) != 0
    {
        let left = Timespec::from_ns(task.left_ns());
        task.memory().write_value(args.word(4), &left)?;
    }
    result
}

/// What the three sets of select(2) mean in events, for asking and for what comes back.
const SETS: [(u32, u32); 3] = [
    (EPOLLIN, EPOLLIN | EPOLLHUP | EPOLLERR),
    (EPOLLOUT, EPOLLOUT | EPOLLERR),
    (EPOLLPRI, EPOLLPRI),
];

fn select_with(task: &mut Task, args: Args, timeout: Option<Timespec>) -> SysResult {
    if let Some(timeout) = timeout {
        task.set_deadline(clock::deadline(libc::CLOCK_MONOTONIC, timeout, false)?);
    }
    let count = usize::try_from(args.int(0)).map_err(|_| Errno::EINVAL)?;
    let count = count.min(MAX_FDS);
    let bytes = count.div_ceil(64).saturating_mul(8);
    let mut sets = [vec![0u8; bytes], vec![0u8; bytes], vec![0u8; bytes]];
    for (index, set) in sets.iter_mut().enumerate() {
        let address = args.word(index.saturating_add(1));
        if address != 0 {
            task.memory().read(address, set)?;
        }
    }
    let has = |set: &[u8], fd: usize| set.get(fd / 8).is_some_and(|b| b >> (fd % 8) & 1 != 0);
    let mut list = Vec::new();
    for fd in 0..count {
        let asked = sets.iter().zip(SETS).filter(|(set, _)| has(set, fd));
        let events = asked.fold(0, |events, (_, (ask, _))| events | ask);
        if events != 0 {
            let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
            task.file(fd)?;
            list.push(PollFd {
                fd,
                events: events as i16,
                revents: 0,
            });
        }
    }
    if let Some(restart) = wait_for(task, &mut list) {
        return Ok(Ret::Block(restart));
    }
    let mut total = 0u64;
    for (index, (set, (_, holds))) in sets.iter().zip(SETS).enumerate() {
        let mut answer = vec![0u8; bytes];
        for entry in &list {
            let fd = entry.fd.unsigned_abs() as usize;
            if has(set, fd) && u32::from(entry.revents as u16) & holds != 0 {
                total = total.saturating_add(1);
                if let Some(byte) = answer.get_mut(fd / 8) {
                    *byte |= 1u8.wrapping_shl((fd % 8) as u32);
                }
            }
        }
        let address = args.word(index.saturating_add(1));
        if address != 0 {
            task.memory().write(address, &answer)?;
        }
    }
    Ok(total.into())
}

/// Adds the events that mean the same as EPOLLIN and EPOLLOUT by other names.
pub(crate) fn with_bands(ready: u32) -> u32 {
    let input = if ready & EPOLLIN != 0 { EPOLLRDNORM } else { 0 };
    let output = if ready & EPOLLOUT != 0 {
        EPOLLWRNORM
    } else {
        0
    };
    ready | input | output
}

/// Fills in what holds now; answers how many entries have something.
fn look(list: &mut [PollFd], files: &[Option<Arc<OpenFile>>]) -> usize {
    let mut ready = 0usize;
    for (entry, open) in list.iter_mut().zip(files) {
        entry.revents = match open {
            None if entry.fd < 0 => 0,
            None => libc::POLLNVAL,
            Some(open) => {
                let always = EPOLLERR | EPOLLHUP;
                let wanted = u32::from(entry.events as u16);
                (with_bands(open.file.readiness_of(wanted)) & (wanted | always)) as i16
            }
        };
        ready = ready.saturating_add(usize::from(entry.revents != 0));
    }
    ready
}
