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
    let files: Vec<Option<Arc<OpenFile>>> =
        list.iter().map(|entry| task.file(entry.fd).ok()).collect();
    if look(&mut list, &files) == 0 && !task.expired() && task.left_or_forever() {
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
        if look(&mut list, &files) == 0 {
            return Ok(Ret::Block(Restart::Never));
        }
    }
    task.memory().write(address, list.as_slice().as_bytes())?;
    let ready = list.iter().filter(|entry| entry.revents != 0).count();
    Ok((ready as u64).into())
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
                (open.file.readiness() & (u32::from(entry.events as u16) | always)) as i16
            }
        };
        ready = ready.saturating_add(usize::from(entry.revents != 0));
    }
    ready
}
