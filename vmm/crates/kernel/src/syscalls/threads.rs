//! Threads and futexes.

use std::sync::Arc;

use vmm_abi::*;

use crate::args::{Args, DONE, Restart, Ret, SysResult, optional_time};
use crate::clock;
use crate::futex::ANY;
use crate::kernel::{ExitStatus, NewThread};
use crate::task::{Fpu, Task};

/// clone(2), for threads.
pub fn clone(task: &mut Task, args: Args, fpu: &mut dyn Fpu) -> SysResult {
    const THREAD: u64 = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
    const KNOWN: u64 = THREAD
        | CLONE_SYSVSEM
        | CLONE_SETTLS
        | CLONE_PARENT_SETTID
        | CLONE_CHILD_CLEARTID
        | CLONE_DETACHED
        | CLONE_CHILD_SETTID;
    let (flags, stack) = (args.word(0), args.word(1));
    if flags & THREAD != THREAD {
        return Err(Errno::EPERM);
    }
    if flags & !(KNOWN | 0xff) != 0 {
        return Err(Errno::EINVAL);
    }
    let tls = args.word(4);
    if flags & CLONE_SETTLS != 0 && !Task::is_user_address(tls) {
        return Err(Errno::EPERM);
    }
    let state = fpu.save()?;
    let name = task.shared.name.lock().clone();
    let shared = task.kernel.add_thread(task.mask(), name)?;
    let tid = shared.tid;
    let mut registers = Registers {
        rax: 0,
        ..task.registers
    };
    if stack != 0 {
        registers.rsp = stack;
    }
    if flags & CLONE_SETTLS != 0 {
        registers.fs_base = tls;
    }
    for (flag, address) in [
        (CLONE_PARENT_SETTID, args.word(2)),
        (CLONE_CHILD_SETTID, args.word(3)),
    ] {
        if flags & flag != 0
            && let Err(errno) = task.memory().write_value(address, &tid)
        {
            task.kernel.remove_thread(tid, 0);
            return Err(errno);
        }
    }
    let clear_child_tid = if flags & CLONE_CHILD_CLEARTID != 0 {
        args.word(3)
    } else {
        0
    };
    task.kernel.start_thread(NewThread {
        shared,
        registers,
        clear_child_tid,
        fpu: state,
    })?;
    Ok(u64::from(tid.unsigned_abs()).into())
}

/// exit(2)
pub fn exit(task: &mut Task, args: Args) -> SysResult {
    task.ending = Some(args.int(0) & 0xff);
    Ok(Ret::Exit)
}

/// exit_group(2)
pub fn exit_group(task: &mut Task, args: Args) -> SysResult {
    task.end_process(ExitStatus::Code(args.int(0) & 0xff));
    Ok(Ret::Exit)
}

/// gettid(2)
pub fn gettid(task: &mut Task, _args: Args) -> SysResult {
    Ok(u64::from(task.shared.tid.unsigned_abs()).into())
}

/// set_tid_address(2)
pub fn set_tid_address(task: &mut Task, args: Args) -> SysResult {
    task.clear_child_tid = args.word(0);
    gettid(task, args)
}

/// set_robust_list(2)
pub fn set_robust_list(task: &mut Task, args: Args) -> SysResult {
    const HEAD_BYTES: u64 = 24;
    if args.word(1) != HEAD_BYTES {
        return Err(Errno::EINVAL);
    }
    task.robust_list = (args.word(0), args.word(1));
    DONE
}

/// get_robust_list(2), of the calling thread.
pub fn get_robust_list(task: &mut Task, args: Args) -> SysResult {
    let tid = args.int(0);
    if tid != 0 && tid != task.shared.tid {
        require_thread(task, tid)?;
        return Err(Errno::EPERM);
    }
    let (head, len) = task.robust_list;
    task.memory().write_value(args.word(2), &len)?;
    task.memory().write_value(args.word(1), &head)?;
    DONE
}

/// sched_yield(2)
pub fn sched_yield(_task: &mut Task, _args: Args) -> SysResult {
    std::thread::yield_now();
    DONE
}

/// sched_setaffinity(2)
pub fn sched_setaffinity(task: &mut Task, args: Args) -> SysResult {
    require_thread(task, args.int(0))?;
    let mut wanted = [0u8; 8];
    let len = usize::try_from(args.word(1)).unwrap_or(usize::MAX).min(8);
    let part = wanted.get_mut(..len).unwrap_or_default();
    task.memory().read(args.word(2), part)?;
    if u64::from_le_bytes(wanted) & processors(task) == 0 {
        return Err(Errno::EINVAL);
    }
    DONE
}

/// The processors as a mask.
fn processors(task: &Task) -> u64 {
    let cpus = task.kernel.identity.cpus.clamp(1, 63);
    1u64.wrapping_shl(cpus).wrapping_sub(1)
}

/// 0 is the calling thread.
fn require_thread(task: &Task, tid: i32) -> Result<(), Errno> {
    if tid == 0 || task.kernel.thread(tid).is_some() {
        Ok(())
    } else {
        Err(Errno::ESRCH)
    }
}

/// sched_getaffinity(2): one word of processors; answers the bytes written.
pub fn sched_getaffinity(task: &mut Task, args: Args) -> SysResult {
    let len = args.word(1);
    if len < 8 || len % 8 != 0 {
        return Err(Errno::EINVAL);
    }
    require_thread(task, args.int(0))?;
    task.memory().write_value(args.word(2), &processors(task))?;
    Ok(8.into())
}

/// getcpu(2). The first processor, always: where a thread runs is the host's to know, and may be another a moment later.
pub fn getcpu(task: &mut Task, args: Args) -> SysResult {
    for address in [args.word(0), args.word(1)] {
        if address != 0 {
            task.memory().write_value(address, &0u32)?;
        }
    }
    Ok(0.into())
}

/// futex(2)
pub fn futex(task: &mut Task, args: Args) -> SysResult {
    let (address, op, value) = (args.word(0), args.int(1), args.flags(2));
    let command = op & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    if op & FUTEX_CLOCK_REALTIME != 0 && command != FUTEX_WAIT_BITSET {
        return Err(Errno::ENOSYS);
    }
    let kernel = Arc::clone(&task.kernel);
    let count = u64::try_from(args.int(2)).unwrap_or(0);
    match command {
        FUTEX_WAIT => {
            let timeout = optional_time(task.memory(), args.word(3))?;
            wait(
                task,
                address,
                value,
                ANY,
                timeout,
                (libc::CLOCK_MONOTONIC, false),
            )
        }
        FUTEX_WAIT_BITSET => {
            let clock = if op & FUTEX_CLOCK_REALTIME != 0 {
                libc::CLOCK_REALTIME
            } else {
                libc::CLOCK_MONOTONIC
            };
            let timeout = optional_time(task.memory(), args.word(3))?;
            wait(task, address, value, args.flags(5), timeout, (clock, true))
        }
        FUTEX_WAKE | FUTEX_WAKE_BITSET => {
            let bits = if command == FUTEX_WAKE {
                ANY
            } else {
                args.flags(5)
            };
            if bits == 0 || address % 4 != 0 {
                return Err(Errno::EINVAL);
            }
            // Words that others may see are looked up by their page, so it must be there.
            if op & FUTEX_PRIVATE_FLAG == 0 {
                let _: u32 = task.memory().read_value(address)?;
            }
            // At least one is woken whatever the number, as on Linux.
            Ok(kernel.futexes.wake(address, count.max(1), bits).into())
        }
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            let expected = (command == FUTEX_CMP_REQUEUE).then(|| args.flags(5));
            if args.int(2) < 0 || args.int(3) < 0 {
                return Err(Errno::EINVAL);
            }
            let limit = u64::from(args.flags(3));
            kernel
                .futexes
                .requeue(
                    &kernel.memory,
                    address,
                    args.word(4),
                    count,
                    limit,
                    expected,
                )
                .map(Into::into)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn wait(
    task: &mut Task,
    address: u64,
    expected: u32,
    bits: u32,
    timeout: Option<Timespec>,
    (clock, absolute): (i32, bool),
) -> SysResult {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let kernel = Arc::clone(&task.kernel);
    if let Some(waiter) = task.futex_waiter().clone() {
        if waiter.woken() {
            return DONE;
        }
        if task.expired() {
            // A wake that was faster than the clock counts.
            return if kernel.futexes.dequeue(&waiter) {
                Err(Errno::ETIMEDOUT)
            } else {
                DONE
            };
        }
        return Ok(Ret::Block(Restart::IfAsked));
    }
    if let Some(timeout) = timeout {
        task.set_deadline(clock::deadline(clock, timeout, absolute)?);
    }
    let parker = Arc::clone(&task.shared.parker);
    let waiter = kernel
        .futexes
        .enqueue(&kernel.memory, address, expected, bits, &parker)?;
    *task.futex_waiter() = Some(waiter);
    Ok(Ret::Block(Restart::IfAsked))
}

/// Marks the robust futexes of an ending thread as left by their owner and wakes one waiter of each
/// (linux/futex.h; Documentation/locking/robust-futex-ABI).
pub(crate) fn leave_robust_futexes(task: &mut Task) {
    const LIMIT: usize = 2048;
    const OWNER_DIED: u32 = 0x4000_0000;
    const WAITERS: u32 = 0x8000_0000;
    const TID_MASK: u32 = 0x3fff_ffff;
    let (head, _) = task.robust_list;
    if head == 0 {
        return;
    }
    let memory = &task.kernel.memory;
    let Ok([first, offset, pending]) = memory.read_value::<[u64; 3]>(head) else {
        return;
    };
    let mut entry = first;
    let mut entries = Vec::new();
    while entry & !1 != head && entries.len() < LIMIT {
        entries.push(entry & !1);
        let Ok(next) = memory.read_value::<u64>(entry & !1) else {
            break;
        };
        entry = next;
    }
    if pending != 0 {
        entries.push(pending & !1);
    }
    for entry in entries {
        let address = entry.wrapping_add(offset);
        let Ok(word) = memory.read_value::<u32>(address) else {
            continue;
        };
        if word & TID_MASK != task.shared.tid.unsigned_abs() {
            continue;
        }
        if memory
            .write_value(address, &((word & WAITERS) | OWNER_DIED))
            .is_ok()
        {
            task.kernel.futexes.wake(address, 1, ANY);
        }
    }
}
