//! What a process asks about itself and its machine.

use std::sync::atomic::Ordering;

use vmm_abi::*;

use crate::args::{Args, DONE, SysResult};
use crate::clock;
use crate::kernel::Identity;
use crate::signal::LAST_SIGNAL;
use crate::task::Task;
use crate::vfs::random;

/// getpid(2), getpgrp(2)
pub fn getpid(identity: &Identity) -> Result<u64, Errno> {
    Ok(u64::from(identity.pid.unsigned_abs()))
}

/// getuid(2), getgid(2), geteuid(2), getegid(2), getppid(2)
pub fn root_id(_identity: &Identity) -> Result<u64, Errno> {
    Ok(0)
}

/// uname(2): six fields of 65 bytes.
pub fn uname(task: &mut Task, args: Args) -> SysResult {
    let hostname = task.kernel.identity.hostname.clone();
    let fields = [
        "Linux",
        hostname.as_str(),
        "6.1.0",
        "#1 cloister",
        "x86_64",
        "(none)",
    ];
    let mut bytes = Vec::new();
    for field in fields {
        let mut padded = field.as_bytes().to_vec();
        padded.resize(65, 0);
        bytes.extend(padded);
    }
    task.memory().write(args.word(0), &bytes)?;
    DONE
}

/// sysinfo(2)
pub fn sysinfo(task: &mut Task, args: Args) -> SysResult {
    let kernel = &task.kernel;
    let total = kernel.identity.memory_bytes;
    let uptime = clock::monotonic_ns().saturating_sub(kernel.started_ns.load(Ordering::Relaxed))
        / 1_000_000_000;
    let info = Sysinfo {
        uptime: uptime as i64,
        totalram: total,
        freeram: total.saturating_sub(kernel.memory.used_bytes().0),
        procs: u16::try_from(kernel.threads().len()).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..Sysinfo::default()
    };
    task.memory().write_value(args.word(0), &info)?;
    DONE
}

/// getrusage(2)
pub fn getrusage(task: &mut Task, args: Args) -> SysResult {
    let clock = match args.int(0) {
        libc::RUSAGE_SELF => libc::CLOCK_PROCESS_CPUTIME_ID,
        libc::RUSAGE_THREAD => libc::CLOCK_THREAD_CPUTIME_ID,
        libc::RUSAGE_CHILDREN => {
            task.memory()
                .write_value(args.word(1), &Rusage::default())?;
            return DONE;
        }
        _ => return Err(Errno::EINVAL),
    };
    let time = Timespec::from_ns(task.clock(clock)?);
    let user = Timeval {
        seconds: time.seconds,
        microseconds: time.nanoseconds / 1000,
    };
    let mut usage = Rusage {
        user,
        ..Rusage::default()
    };
    if let Some(peak_kib) = usage.counters.first_mut() {
        *peak_kib = (task.memory().used_bytes().1 / 1024) as i64;
    }
    task.memory().write_value(args.word(1), &usage)?;
    DONE
}

/// getrlimit(2)
pub fn getrlimit(task: &mut Task, args: Args) -> SysResult {
    let limit = task.kernel.limits.lock().get(args.int(0))?;
    task.memory().write_value(args.word(1), &limit)?;
    DONE
}

/// setrlimit(2)
pub fn setrlimit(task: &mut Task, args: Args) -> SysResult {
    let wanted: Rlimit = task.memory().read_value(args.word(1))?;
    set_limit(task, args.int(0), wanted)?;
    DONE
}

fn set_limit(task: &Task, resource: i32, wanted: Rlimit) -> Result<(), Errno> {
    task.kernel.board.limits_change();
    task.kernel.limits.lock().set(resource, wanted)?;
    if resource.unsigned_abs() == libc::RLIMIT_NOFILE {
        let limit = usize::try_from(wanted.current).unwrap_or(usize::MAX);
        task.kernel.files.lock().set_limit(limit);
    }
    Ok(())
}

/// prlimit(2)
pub fn prlimit(task: &mut Task, args: Args) -> SysResult {
    let pid = args.int(0);
    if pid != 0 && pid != task.kernel.identity.pid {
        return Err(Errno::ESRCH);
    }
    let current = task.kernel.limits.lock().get(args.int(1))?;
    if args.word(2) != 0 {
        let wanted: Rlimit = task.memory().read_value(args.word(2))?;
        set_limit(task, args.int(1), wanted)?;
    }
    if args.word(3) != 0 {
        task.memory().write_value(args.word(3), &current)?;
    }
    DONE
}

/// getpgid(2), getsid(2): the process leads its group and session.
pub fn own_group(task: &mut Task, args: Args) -> SysResult {
    let own = task.kernel.identity.pid;
    match args.int(0) {
        pid if pid == 0 || pid == own => Ok(u64::from(own.unsigned_abs()).into()),
        _ => Err(Errno::ESRCH),
    }
}

/// membarrier(2): the expedited barrier of this process, which the host makes: guest threads are threads of
/// the monitor.
pub fn membarrier(_task: &mut Task, args: Args) -> SysResult {
    const QUERY: i32 = 0;
    const PRIVATE_EXPEDITED: i32 = 8;
    const REGISTER: i32 = 16;
    let (command, flags) = (args.int(0), args.flags(1));
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        QUERY => Ok(u64::from((PRIVATE_EXPEDITED | REGISTER).unsigned_abs()).into()),
        PRIVATE_EXPEDITED | REGISTER => {
            // SAFETY: the call takes numbers only.
            let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
            if result == 0 {
                DONE
            } else {
                Err(std::io::Error::last_os_error().into())
            }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// prctl(2)
pub fn prctl(task: &mut Task, args: Args) -> SysResult {
    const PR_SET_VMA: i32 = 0x5356_4d41;
    let address = args.word(1);
    match args.int(0) {
        libc::PR_SET_NAME => {
            let mut name = [0u8; 16];
            let count = task.memory().read_some(address, &mut name)?;
            let name = name.get(..count.min(15)).unwrap_or_default();
            let end = name
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len());
            *task.shared.name.lock() = name.iter().take(end).copied().collect();
            DONE
        }
        libc::PR_GET_NAME => {
            let mut name = task.shared.name.lock().clone();
            name.resize(16, 0);
            task.memory().write(address, &name)?;
            DONE
        }
        // No parent ever dies here, and no program gains rights: both hold already.
        libc::PR_SET_PDEATHSIG if (0..=LAST_SIGNAL).contains(&args.int(1)) => DONE,
        libc::PR_SET_NO_NEW_PRIVS if args.word(1) == 1 => DONE,
        libc::PR_GET_NO_NEW_PRIVS | libc::PR_GET_DUMPABLE => Ok(1.into()),
        PR_SET_VMA => DONE,
        _ => Err(Errno::EINVAL),
    }
}

/// arch_prctl(2)
pub fn arch_prctl(task: &mut Task, args: Args) -> SysResult {
    const ARCH_SET_GS: i32 = 0x1001;
    const ARCH_SET_FS: i32 = 0x1002;
    const ARCH_GET_FS: i32 = 0x1003;
    const ARCH_GET_GS: i32 = 0x1004;
    let address = args.word(1);
    match args.int(0) {
        ARCH_SET_FS | ARCH_SET_GS if !Task::is_user_address(address) => Err(Errno::EPERM),
        ARCH_SET_FS => {
            task.registers.fs_base = address;
            DONE
        }
        ARCH_SET_GS => {
            task.registers.gs_base = address;
            DONE
        }
        ARCH_GET_FS => {
            task.memory()
                .write_value(address, &task.registers.fs_base)?;
            DONE
        }
        ARCH_GET_GS => {
            task.memory()
                .write_value(address, &task.registers.gs_base)?;
            DONE
        }
        _ => Err(Errno::EINVAL),
    }
}

/// getrandom(2)
pub fn getrandom(task: &mut Task, args: Args) -> SysResult {
    const KNOWN: u32 = libc::GRND_NONBLOCK | libc::GRND_RANDOM | libc::GRND_INSECURE;
    if args.flags(2) & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    // A short answer is allowed above 256 bytes; this bounds what one call holds in memory.
    let len = args.word(1).min(1 << 20);
    let mut bytes = vec![0u8; len as usize];
    random(&mut bytes)?;
    task.memory().write(args.word(0), &bytes)?;
    Ok(len.into())
}
