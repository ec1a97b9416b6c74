//! Calls whose answer is the same for every guest: identity, scheduling, and what is refused.

use vmm_abi::*;

use super::paths::node_at;
use crate::args::{Args, DONE, SysResult};
use crate::kernel::Identity;
use crate::task::Task;

/// EPERM: no other process and no other program runs in the sandbox.
pub fn refuse(_task: &mut Task, _args: Args) -> SysResult {
    Err(Errno::EPERM)
}

/// ENOSYS, which C libraries take as a sign to use the older call.
pub fn absent(_identity: &Identity) -> Result<u64, Errno> {
    Err(Errno::ENOSYS)
}

/// ECHILD: there are no children.
pub fn no_children(_task: &mut Task, _args: Args) -> SysResult {
    Err(Errno::ECHILD)
}

/// capget(2): no capabilities, in the layout of version 3.
pub fn capget(task: &mut Task, args: Args) -> SysResult {
    const VERSION_3: u32 = 0x2008_0522;
    let version: u32 = task.memory().read_value(args.word(0))?;
    if version != VERSION_3 {
        task.memory().write_value(args.word(0), &VERSION_3)?;
        return if args.word(1) == 0 {
            DONE
        } else {
            Err(Errno::EINVAL)
        };
    }
    if args.word(1) != 0 {
        task.memory().write_value(args.word(1), &[0u32; 6])?;
    }
    DONE
}

/// getgroups(2): no supplementary groups.
pub fn getgroups(_task: &mut Task, args: Args) -> SysResult {
    if args.int(0) < 0 {
        return Err(Errno::EINVAL);
    }
    DONE
}

/// setuid(2) and its family: to root, which the guest is, or to no change (-1).
pub fn keep_root(_task: &mut Task, args: Args) -> SysResult {
    let Args([first, ..]) = args;
    root_or_same(&[first])
}

/// setreuid(2), setregid(2)
pub fn keep_root_twice(_task: &mut Task, args: Args) -> SysResult {
    let Args([first, second, ..]) = args;
    root_or_same(&[first, second])
}

/// setresuid(2), setresgid(2)
pub fn keep_root_thrice(_task: &mut Task, args: Args) -> SysResult {
    let Args([first, second, third, ..]) = args;
    root_or_same(&[first, second, third])
}

fn root_or_same(ids: &[u64]) -> SysResult {
    if ids
        .iter()
        .all(|id| *id as u32 == 0 || *id as u32 == u32::MAX)
    {
        DONE
    } else {
        Err(Errno::EPERM)
    }
}

/// wait4(2): there are no children.
pub fn wait4(_task: &mut Task, args: Args) -> SysResult {
    const KNOWN: i32 = libc::WNOHANG
        | libc::WUNTRACED
        | libc::WCONTINUED
        | libc::__WCLONE
        | libc::__WALL
        | libc::__WNOTHREAD;
    if args.int(2) & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ECHILD)
}

/// sched_get_priority_max(2)
pub fn priority_max(_task: &mut Task, args: Args) -> SysResult {
    priority_bound(args.int(0), 99)
}

/// sched_get_priority_min(2)
pub fn priority_min(_task: &mut Task, args: Args) -> SysResult {
    priority_bound(args.int(0), 1)
}

fn priority_bound(policy: i32, real_time: u64) -> SysResult {
    const SCHED_DEADLINE: i32 = 6;
    match policy {
        libc::SCHED_FIFO | libc::SCHED_RR => Ok(real_time.into()),
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE | SCHED_DEADLINE => DONE,
        _ => Err(Errno::EINVAL),
    }
}

/// The thread that a call of the scheduler's family names; 0 is the calling one.
fn require_thread(task: &Task, tid: i32) -> Result<(), Errno> {
    match tid {
        ..0 => Err(Errno::EINVAL),
        0 => Ok(()),
        _ => task.kernel.thread(tid).map(|_| ()).ok_or(Errno::ESRCH),
    }
}

/// sched_setscheduler(2): to SCHED_OTHER, which it is.
pub fn setscheduler(task: &mut Task, args: Args) -> SysResult {
    let policy = args.int(1) & !libc::SCHED_RESET_ON_FORK;
    if args.int(0) < 0 || args.int(1) < 0 || args.word(2) == 0 {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = task.memory().read_value(args.word(2))?;
    require_thread(task, args.int(0))?;
    match policy {
        libc::SCHED_OTHER if priority == 0 => DONE,
        libc::SCHED_BATCH | libc::SCHED_IDLE if priority == 0 => Err(Errno::EPERM),
        libc::SCHED_FIFO | libc::SCHED_RR if (1..=99).contains(&priority) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_getscheduler(2): SCHED_OTHER.
pub fn getscheduler(task: &mut Task, args: Args) -> SysResult {
    require_thread(task, args.int(0))?;
    DONE
}

/// setpgid(2): one process, one group, which it leads.
pub fn setpgid(task: &mut Task, args: Args) -> SysResult {
    let pid = task.kernel.identity.pid;
    match (args.int(0), args.int(1)) {
        (_, ..0) => Err(Errno::EINVAL),
        (process, _) if process != 0 && process != pid => Err(Errno::ESRCH),
        (_, group) if group != 0 && group != pid => Err(Errno::EPERM),
        _ => DONE,
    }
}

/// personality(2): that of Linux, which may be asked for.
pub fn personality(_task: &mut Task, args: Args) -> SysResult {
    match args.flags(0) {
        0 | u32::MAX => DONE,
        _ => Err(Errno::EINVAL),
    }
}

/// getresuid(2) and getresgid(2): root.
pub fn root_ids(task: &mut Task, args: Args) -> SysResult {
    for index in 0..3 {
        task.memory().write_value(args.word(index), &0u32)?;
    }
    DONE
}

/// sched_getparam(2): priority 0.
pub fn sched_getparam(task: &mut Task, args: Args) -> SysResult {
    if args.word(1) == 0 {
        return Err(Errno::EINVAL);
    }
    require_thread(task, args.int(0))?;
    task.memory().write_value(args.word(1), &0u32)?;
    DONE
}

/// getpriority(2): nice value 0 in the raw call's form.
pub fn getpriority(task: &mut Task, args: Args) -> SysResult {
    require_prioritized(task, args.int(0), args.int(1))?;
    Ok(20.into())
}

/// setpriority(2): without effect.
pub fn setpriority(task: &mut Task, args: Args) -> SysResult {
    require_prioritized(task, args.int(0), args.int(1))?;
    DONE
}

fn require_prioritized(task: &Task, which: i32, who: i32) -> Result<(), Errno> {
    const PRIO_PROCESS: i32 = 0;
    const PRIO_PGRP: i32 = 1;
    const PRIO_USER: i32 = 2;
    let known = match which {
        PRIO_PROCESS => who == 0 || task.kernel.thread(who).is_some(),
        PRIO_PGRP => who == 0 || who == task.kernel.identity.pid,
        // 0 is the calling user, and the guest is user 0.
        PRIO_USER => who == 0,
        _ => return Err(Errno::EINVAL),
    };
    if known { Ok(()) } else { Err(Errno::ESRCH) }
}

/// statfs(2)
pub fn statfs(task: &mut Task, args: Args) -> SysResult {
    node_at(task, AT_FDCWD, args.word(0), 0)?;
    tmpfs(task, args.word(1))
}

/// fstatfs(2)
pub fn fstatfs(task: &mut Task, args: Args) -> SysResult {
    task.named_file(args.int(0))?;
    tmpfs(task, args.word(1))
}

/// Every file system looks like a tmpfs of the memory's size.
fn tmpfs(task: &Task, address: u64) -> SysResult {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let blocks = task.kernel.identity.memory_bytes / PAGE_SIZE;
    let info = Statfs {
        kind: TMPFS_MAGIC,
        bsize: PAGE_SIZE as i64,
        blocks,
        bfree: blocks,
        bavail: blocks,
        namelen: 255,
        frsize: PAGE_SIZE as i64,
        ..Statfs::default()
    };
    task.memory().write_value(address, &info)?;
    DONE
}

/// times(2): processor time in ticks of 10 ms; answers ticks since an arbitrary start.
pub fn times(task: &mut Task, args: Args) -> SysResult {
    const TICK_NS: u64 = 10_000_000;
    if args.word(0) != 0 {
        let user = task.clock(libc::CLOCK_PROCESS_CPUTIME_ID)? / TICK_NS;
        task.memory().write_value(args.word(0), &[user, 0, 0, 0])?;
    }
    Ok((crate::clock::monotonic_ns() / TICK_NS).into())
}
