//! Timers that are read, and timers that send signals.

use std::sync::Arc;

use vmm_abi::*;

use crate::args::{Args, DONE, SysResult};
use crate::file::OpenFile;
use crate::signal::LAST_SIGNAL;
use crate::task::Task;
use crate::timer::{Alarm, TimerFd};

/// TFD_TIMER_ABSTIME and TIMER_ABSTIME; TFD_TIMER_CANCEL_ON_SET, which nothing here ever does.
const ABSOLUTE: u32 = 1;
const CANCEL_ON_SET: u32 = 2;

/// timerfd_create(2)
pub fn timerfd_create(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(1);
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = TimerFd::new(args.int(0))?;
    let status = (flags & O_NONBLOCK) | O_RDWR;
    let open = OpenFile::new(file, "anon_inode:[timerfd]".into(), status);
    task.add_file(open, flags & O_CLOEXEC != 0)
}

fn with_timer<T>(
    task: &Task,
    fd: i32,
    action: impl FnOnce(&TimerFd) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let open = task.file(fd)?;
    let timer = open.file.as_any().downcast_ref::<TimerFd>();
    action(timer.ok_or(Errno::EINVAL)?)
}

/// timerfd_settime(2)
pub fn timerfd_settime(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(1);
    let wanted: Itimerspec = task.memory().read_value(args.word(2))?;
    if flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let absolute = flags & ABSOLUTE != 0;
    let before = with_timer(task, args.int(0), |timer| timer.set(wanted, absolute))?;
    put(task, args.word(3), &before)
}

/// timerfd_gettime(2)
pub fn timerfd_gettime(task: &mut Task, args: Args) -> SysResult {
    let left = with_timer(task, args.int(0), |timer| Ok(timer.left()))?;
    task.memory().write_value(args.word(1), &left)?;
    DONE
}

fn put(task: &Task, address: u64, setting: &Itimerspec) -> SysResult {
    if address != 0 {
        task.memory().write_value(address, setting)?;
    }
    DONE
}

/// alarm(2): answers the seconds that were left.
pub fn alarm(task: &mut Task, args: Args) -> SysResult {
    let wanted = Itimerspec {
        value: Timespec {
            seconds: i64::from(args.flags(0)),
            nanoseconds: 0,
        },
        ..Itimerspec::default()
    };
    let left = Alarm::real(&task.kernel)?.set(wanted, false)?.value;
    // Rounded, but never to 0 while it runs (alarm(2) of Linux).
    let up = left.nanoseconds >= 500_000_000 || (left.seconds == 0 && left.nanoseconds > 0);
    let seconds = u64::try_from(left.seconds).unwrap_or(0);
    Ok(seconds.saturating_add(u64::from(up)).into())
}

/// `struct itimerval`: interval and value, in seconds and microseconds.
type Micro = [i64; 4];

fn to_micro(setting: Itimerspec) -> Micro {
    let Itimerspec { interval, value } = setting;
    [
        interval.seconds,
        interval.nanoseconds / 1000,
        value.seconds,
        value.nanoseconds / 1000,
    ]
}

fn of_micro([interval, interval_us, value, value_us]: Micro) -> Result<Itimerspec, Errno> {
    let time = |seconds, us: i64| match us {
        0..1_000_000 => Ok(Timespec {
            seconds,
            nanoseconds: us.saturating_mul(1000),
        }),
        _ => Err(Errno::EINVAL),
    };
    Ok(Itimerspec {
        interval: time(interval, interval_us)?,
        value: time(value, value_us)?,
    })
}

fn require_real(which: i32) -> Result<(), Errno> {
    if which == libc::ITIMER_REAL {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// setitimer(2)
pub fn setitimer(task: &mut Task, args: Args) -> SysResult {
    require_real(args.int(0))?;
    let wanted = match args.word(1) {
        0 => Itimerspec::default(),
        address => of_micro(task.memory().read_value(address)?)?,
    };
    let before = Alarm::real(&task.kernel)?.set(wanted, false)?;
    if args.word(2) != 0 {
        let before = to_micro(before);
        task.memory().write_value(args.word(2), &before)?;
    }
    DONE
}

/// getitimer(2)
pub fn getitimer(task: &mut Task, args: Args) -> SysResult {
    require_real(args.int(0))?;
    let left = to_micro(Alarm::real(&task.kernel)?.left());
    task.memory().write_value(args.word(1), &left)?;
    DONE
}

/// timer_create(2)
pub fn timer_create(task: &mut Task, args: Args) -> SysResult {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD_ID: i32 = 4;
    let id = task.kernel.alarms.lock().free_id()?;
    // struct sigevent: value, signal and kind, thread.
    let (value, signal, kind, tid) = match args.word(1) {
        0 => (id as u64, SIGALRM, SIGEV_SIGNAL, 0),
        address => {
            let [value, numbers, thread]: [u64; 3] = task.memory().read_value(address)?;
            let (signal, kind) = (numbers as u32 as i32, (numbers >> 32) as i32);
            (value, signal, kind, thread as u32 as i32)
        }
    };
    let thread = match kind {
        SIGEV_NONE | SIGEV_SIGNAL => None,
        SIGEV_THREAD_ID => Some(task.kernel.thread(tid).ok_or(Errno::EINVAL)?),
        _ => return Err(Errno::EINVAL),
    };
    if kind != SIGEV_NONE && !(1..=LAST_SIGNAL).contains(&signal) {
        return Err(Errno::EINVAL);
    }
    let mut info = SigInfo {
        signo: signal,
        code: SI_TIMER,
        ..SigInfo::default()
    };
    let [number, kept, ..] = &mut info.words;
    (*number, *kept) = (id as u64, value);
    let info = (kind != SIGEV_NONE).then_some(info);
    let thread = thread.as_ref().map(Arc::downgrade);
    let alarm = Alarm::new(&task.kernel, args.int(0), info, thread)?;
    task.memory().write_value(args.word(2), &id)?;
    task.kernel.alarms.lock().add(id, alarm);
    DONE
}

/// timer_settime(2)
pub fn timer_settime(task: &mut Task, args: Args) -> SysResult {
    let wanted: Itimerspec = task.memory().read_value(args.word(2))?;
    let alarm = task.kernel.alarms.lock().get(args.int(0))?;
    let before = alarm.set(wanted, args.flags(1) & ABSOLUTE != 0)?;
    put(task, args.word(3), &before)
}

/// timer_gettime(2)
pub fn timer_gettime(task: &mut Task, args: Args) -> SysResult {
    let alarm = task.kernel.alarms.lock().get(args.int(0))?;
    task.memory().write_value(args.word(1), &alarm.left())?;
    DONE
}

/// timer_getoverrun(2)
pub fn timer_getoverrun(task: &mut Task, args: Args) -> SysResult {
    let alarm = task.kernel.alarms.lock().get(args.int(0))?;
    Ok(alarm.overrun().into())
}

/// timer_delete(2)
pub fn timer_delete(task: &mut Task, args: Args) -> SysResult {
    task.kernel.alarms.lock().remove(args.int(0))?;
    DONE
}
