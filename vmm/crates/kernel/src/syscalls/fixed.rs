//! Calls whose answer is the same for every guest: identity, scheduling, and what is refused.

use vmm_abi::*;

use crate::args::{Args, DONE, SysResult};
use crate::task::Task;

/// Success without effect.
pub fn accept(_task: &mut Task, _args: Args) -> SysResult {
    DONE
}

/// EPERM: no other process and no other program runs in the sandbox.
pub fn refuse(_task: &mut Task, _args: Args) -> SysResult {
    Err(Errno::EPERM)
}

/// ENOSYS, which C libraries take as a sign to use the older call.
pub fn absent(_task: &mut Task, _args: Args) -> SysResult {
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
pub fn getgroups(_task: &mut Task, _args: Args) -> SysResult {
    DONE
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
    task.memory().write_value(args.word(1), &0u32)?;
    DONE
}

/// getpriority(2): nice value 0 in the raw call's form.
pub fn getpriority(_task: &mut Task, _args: Args) -> SysResult {
    Ok(20.into())
}

/// statfs(2) and fstatfs(2): a tmpfs.
pub fn statfs(task: &mut Task, args: Args) -> SysResult {
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
    task.memory().write_value(args.word(1), &info)?;
    DONE
}

/// times(2): processor time in ticks of 10 ms; answers ticks since an arbitrary start.
pub fn times(task: &mut Task, args: Args) -> SysResult {
    const TICK_NS: u64 = 10_000_000;
    if args.word(0) != 0 {
        let user = crate::clock::read(libc::CLOCK_PROCESS_CPUTIME_ID)? / TICK_NS;
        task.memory().write_value(args.word(0), &[user, 0, 0, 0])?;
    }
    Ok((crate::clock::monotonic_ns() / TICK_NS).into())
}
