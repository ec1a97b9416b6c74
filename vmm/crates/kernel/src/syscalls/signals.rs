//! Signals as system calls.

use std::sync::Arc;

use vmm_abi::*;

use crate::args::{Args, DONE, Restart, Ret, SysResult, optional_time};
use crate::clock;
use crate::file::OpenFile;
use crate::kernel::ThreadShared;
use crate::signal::{LAST_SIGNAL, unblockable};
use crate::signalfd::SignalFd;
use crate::task::{Fpu, Task};

fn check_size(size: u64) -> Result<(), Errno> {
    if size == 8 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// rt_sigaction(2)
pub fn sigaction(task: &mut Task, args: Args) -> SysResult {
    check_size(args.word(3))?;
    let signal = args.int(0);
    let kernel = Arc::clone(&task.kernel);
    let new = match args.word(1) {
        0 => None,
        address => Some(kernel.memory.read_value::<SigAction>(address)?),
    };
    let mut actions = kernel.actions.lock();
    let old = actions.get(signal)?;
    if let Some(new) = new {
        actions.set(signal, new)?;
        if actions.is_ignored(signal) {
            for thread in kernel.threads() {
                thread.pending.lock().discard(signal);
            }
        }
    }
    drop(actions);
    if args.word(2) != 0 {
        kernel.memory.write_value(args.word(2), &old)?;
    }
    DONE
}

/// rt_sigprocmask(2)
pub fn sigprocmask(task: &mut Task, args: Args) -> SysResult {
    check_size(args.word(3))?;
    let old = task.mask();
    if args.word(1) != 0 {
        let set: u64 = task.memory().read_value(args.word(1))?;
        task.set_mask(match args.int(0) {
            libc::SIG_BLOCK => old | set,
            libc::SIG_UNBLOCK => old & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        });
    }
    if args.word(2) != 0 {
        task.memory().write_value(args.word(2), &old)?;
    }
    DONE
}

/// rt_sigreturn(2)
pub fn sigreturn(task: &mut Task, _args: Args, fpu: &mut dyn Fpu) -> SysResult {
    if task.pop_frame(fpu).is_err() {
        let info = SigInfo {
            signo: SIGSEGV,
            code: SI_KERNEL,
            ..SigInfo::default()
        };
        task.force_signal(info, None, fpu);
    }
    Ok(Ret::Registers)
}

/// rt_sigpending(2)
pub fn sigpending(task: &mut Task, args: Args) -> SysResult {
    check_size(args.word(1))?;
    let pending = task.shared.pending.lock().mask() | task.kernel.actions.lock().pending.mask();
    task.memory()
        .write_value(args.word(0), &(pending & task.mask()))?;
    DONE
}

/// rt_sigsuspend(2)
pub fn sigsuspend(task: &mut Task, args: Args) -> SysResult {
    check_size(args.word(1))?;
    let mask: u64 = task.memory().read_value(args.word(0))?;
    if task.saved_mask.is_none() {
        task.saved_mask = Some(task.mask());
        task.set_mask(mask);
    }
    Ok(Ret::Block(Restart::Never))
}

/// pause(2)
pub fn pause(_task: &mut Task, _args: Args) -> SysResult {
    Ok(Ret::Block(Restart::Never))
}

/// sigaltstack(2)
pub fn sigaltstack(task: &mut Task, args: Args) -> SysResult {
    const MINIMUM: u64 = 2048;
    let old = task.alt_stack;
    let inside = task.registers.rsp.wrapping_sub(old.sp).wrapping_sub(1) < old.size;
    let active = old.flags & SS_DISABLE == 0 && inside;
    if args.word(0) != 0 {
        let new: SigStack = task.memory().read_value(args.word(0))?;
        if active {
            return Err(Errno::EPERM);
        }
        const AUTODISARM: i32 = i32::MIN;
        task.alt_stack = match new.flags & !AUTODISARM {
            SS_DISABLE => SigStack {
                flags: SS_DISABLE,
                ..SigStack::default()
            },
            0 | SS_ONSTACK if new.size < MINIMUM => return Err(Errno::ENOMEM),
            0 | SS_ONSTACK => SigStack {
                flags: 0,
                pad: 0,
                ..new
            },
            _ => return Err(Errno::EINVAL),
        };
    }
    if args.word(1) != 0 {
        let flags = if active { SS_ONSTACK } else { old.flags };
        task.memory()
            .write_value(args.word(1), &SigStack { flags, ..old })?;
    }
    DONE
}

fn send(task: &Task, thread: Option<&Arc<ThreadShared>>, signal: i32, code: i32) -> SysResult {
    if !(0..=LAST_SIGNAL).contains(&signal) {
        return Err(Errno::EINVAL);
    }
    if signal == 0 {
        return DONE;
    }
    let mut info = SigInfo {
        signo: signal,
        code,
        ..SigInfo::default()
    };
    if let Some(word) = info.words.first_mut() {
        *word = u64::from(task.kernel.identity.pid.unsigned_abs());
    }
    task.kernel.send_signal(thread, info)?;
    DONE
}

/// rt_sigtimedwait(2)
pub fn sigtimedwait(task: &mut Task, args: Args) -> SysResult {
    check_size(args.word(3))?;
    let set: u64 = task.memory().read_value(args.word(0))?;
    let set = set & !unblockable();
    let timeout = optional_time(task.memory(), args.word(2))?;
    if let Some(timeout) = timeout {
        task.set_deadline(clock::deadline(libc::CLOCK_MONOTONIC, timeout, false)?);
    }
    if !task.is_watching() {
        let queue = Arc::clone(&task.kernel.signal_queue);
        task.watch(&queue);
    }
    let Some(info) = task.kernel.take_signal(Some(&task.shared), set) else {
        if task.expired() || !task.left_or_forever() {
            return Err(Errno::EAGAIN);
        }
        return Ok(Ret::Block(Restart::Never));
    };
    if args.word(1) != 0 {
        task.memory().write_value(args.word(1), &info)?;
    }
    Ok(u64::from(info.signo.unsigned_abs()).into())
}

/// A signal with information that its sender made up, which only the process itself may do.
fn queued(task: &Task, signal: i32, address: u64) -> Result<Option<SigInfo>, Errno> {
    let info: SigInfo = task.memory().read_value(address)?;
    match signal {
        0 => Ok(None),
        1..=LAST_SIGNAL => Ok(Some(SigInfo {
            signo: signal,
            ..info
        })),
        _ => Err(Errno::EINVAL),
    }
}

/// rt_sigqueueinfo(2)
pub fn sigqueueinfo(task: &mut Task, args: Args) -> SysResult {
    let info = queued(task, args.int(1), args.word(2))?;
    if args.int(0) != task.kernel.identity.pid {
        return Err(Errno::ESRCH);
    }
    if let Some(info) = info {
        task.kernel.send_signal(None, info)?;
    }
    DONE
}

/// rt_tgsigqueueinfo(2)
pub fn tgsigqueueinfo(task: &mut Task, args: Args) -> SysResult {
    let info = queued(task, args.int(2), args.word(3))?;
    if args.int(0) <= 0 || args.int(1) <= 0 {
        return Err(Errno::EINVAL);
    }
    if args.int(0) != task.kernel.identity.pid {
        return Err(Errno::ESRCH);
    }
    let thread = task.kernel.thread(args.int(1)).ok_or(Errno::ESRCH)?;
    if let Some(info) = info {
        task.kernel.send_signal(Some(&thread), info)?;
    }
    DONE
}

/// signalfd(2)
pub fn signalfd(task: &mut Task, args: Args) -> SysResult {
    make_signalfd(task, args, 0)
}

/// signalfd4(2)
pub fn signalfd4(task: &mut Task, args: Args) -> SysResult {
    make_signalfd(task, args, args.flags(3))
}

fn make_signalfd(task: &mut Task, args: Args, flags: u32) -> SysResult {
    check_size(args.word(2))?;
    let mask: u64 = task.memory().read_value(args.word(1))?;
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if args.int(0) != -1 {
        let open = task.file(args.int(0))?;
        let file = open.file.as_any().downcast_ref::<SignalFd>();
        file.ok_or(Errno::EINVAL)?.set_mask(mask);
        return Ok(u64::from(args.flags(0)).into());
    }
    let file = SignalFd::new(mask, &task.kernel);
    let status = (flags & O_NONBLOCK) | O_RDWR;
    let open = OpenFile::new(file, "anon_inode:[signalfd]".into(), status);
    task.add_file(open, flags & O_CLOEXEC != 0)
}

/// kill(2)
pub fn kill(task: &mut Task, args: Args) -> SysResult {
    let own = task.kernel.identity.pid;
    // -1 means all others, of which there are none; 0 and the negated id mean the process's group.
    match args.int(0) {
        pid if pid == own || pid == 0 || pid == own.wrapping_neg() => {
            send(task, None, args.int(1), SI_USER)
        }
        _ => Err(Errno::ESRCH),
    }
}

/// tkill(2)
pub fn tkill(task: &mut Task, args: Args) -> SysResult {
    to_thread(task, args.int(0), args.int(1))
}

/// tgkill(2)
pub fn tgkill(task: &mut Task, args: Args) -> SysResult {
    if args.int(0) <= 0 || args.int(1) <= 0 {
        return Err(Errno::EINVAL);
    }
    if args.int(0) != task.kernel.identity.pid {
        return Err(Errno::ESRCH);
    }
    to_thread(task, args.int(1), args.int(2))
}

fn to_thread(task: &Task, tid: i32, signal: i32) -> SysResult {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let thread = task.kernel.thread(tid).ok_or(Errno::ESRCH)?;
    send(task, Some(&thread), signal, SI_TKILL)
}
