//! Clocks and sleeping.

use vmm_abi::*;

use crate::args::{Args, DONE, Restart, Ret, SysResult};
use crate::clock;
use crate::task::Task;

/// clock_gettime(2)
pub fn clock_gettime(task: &mut Task, args: Args) -> SysResult {
    let now = Timespec::from_ns(task.clock(args.int(0))?);
    task.memory().write_value(args.word(1), &now)?;
    DONE
}

/// clock_getres(2)
pub fn clock_getres(task: &mut Task, args: Args) -> SysResult {
    clock::read(args.int(0))?;
    if args.word(1) != 0 {
        task.memory()
            .write_value(args.word(1), &Timespec::from_ns(1))?;
    }
    DONE
}

/// gettimeofday(2)
pub fn gettimeofday(task: &mut Task, args: Args) -> SysResult {
    let now = clock::realtime_ns() / 1000;
    let time = Timeval {
        seconds: (now / 1_000_000) as i64,
        microseconds: (now % 1_000_000) as i64,
    };
    if args.word(0) != 0 {
        task.memory().write_value(args.word(0), &time)?;
    }
    if args.word(1) != 0 {
        task.memory().write_value(args.word(1), &[0u32; 2])?;
    }
    DONE
}

/// time(2)
pub fn time(task: &mut Task, args: Args) -> SysResult {
    let now = clock::realtime_ns() / 1_000_000_000;
    if args.word(0) != 0 {
        task.memory().write_value(args.word(0), &now)?;
    }
    Ok(now.into())
}

/// nanosleep(2)
pub fn nanosleep(task: &mut Task, args: Args) -> SysResult {
    sleep(
        task,
        libc::CLOCK_MONOTONIC,
        false,
        args.word(0),
        args.word(1),
    )
}

/// clock_nanosleep(2)
pub fn clock_nanosleep(task: &mut Task, args: Args) -> SysResult {
    let absolute = args.int(1) & libc::TIMER_ABSTIME != 0;
    sleep(task, args.int(0), absolute, args.word(2), args.word(3))
}

fn sleep(task: &mut Task, id: i32, absolute: bool, request: u64, remaining: u64) -> SysResult {
    if task.expired() {
        return DONE;
    }
    let wanted: Timespec = task.memory().read_value(request)?;
    let deadline = clock::deadline(id, wanted, absolute)?;
    task.set_deadline(deadline);
    // Written before the sleep as well as in it, so that it is right whenever a signal ends it.
    if remaining != 0 && !absolute {
        let left = Timespec::from_ns(task.left_ns());
        task.memory().write_value(remaining, &left)?;
    }
    Ok(Ret::Block(Restart::Never))
}
