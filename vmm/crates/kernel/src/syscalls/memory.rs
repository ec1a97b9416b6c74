//! mmap and its family.

use vmm_abi::*;
use vmm_memory::{Backing, Charge, Kind, MapRequest, Place};

use crate::args::{Args, DONE, SysResult};
use crate::task::Task;

/// Flags that MAP_SHARED_VALIDATE lets through.
const KNOWN_FLAGS: u32 = MAP_SHARED_VALIDATE
    | MAP_FIXED
    | MAP_ANONYMOUS
    | MAP_32BIT
    | MAP_GROWSDOWN
    | MAP_NORESERVE
    | MAP_POPULATE
    | MAP_STACK
    | MAP_FIXED_NOREPLACE
    // MAP_DENYWRITE, MAP_EXECUTABLE, MAP_LOCKED, MAP_NONBLOCK: without effect.
    | 0x800
    | 0x1000
    | 0x2000
    | 0x1_0000;

/// mmap(2)
pub fn mmap(task: &mut Task, args: Args) -> SysResult {
    let fixed = args.flags(3) & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
    if fixed {
        // It may take away what is there and then fail.
        task.kernel.board.unmapped();
    }
    let start = map(task, args)?;
    // Elsewhere nobody but the caller, once it has the answer, knows of it, so that nobody unmaps it meanwhile.
    if !fixed {
        task.kernel.board.mapped(start, args.word(1));
    }
    Ok(start.into())
}

fn map(task: &mut Task, args: Args) -> Result<u64, Errno> {
    let (address, len, flags) = (args.word(0), args.word(1), args.flags(3));
    let prot = Task::protection(args.flags(2))?;
    let offset = args.word(5);
    if flags & MAP_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let shared = match flags & 3 {
        MAP_SHARED | MAP_SHARED_VALIDATE => true,
        MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL),
    };
    let place = if flags & MAP_FIXED_NOREPLACE != 0 {
        Place::FixedNoReplace(address)
    } else if flags & MAP_FIXED != 0 {
        Place::Fixed(address)
    } else if flags & MAP_32BIT != 0 {
        Place::Low
    } else {
        Place::Near(address)
    };
    let memory = &task.kernel.memory;
    let request = MapRequest {
        allowed: Prot::all(),
        place,
        len,
        prot,
        backing: if shared {
            Backing::SharedAnonymous
        } else {
            Backing::Anonymous
        },
        kind: if shared {
            Kind::SharedAnonymous
        } else {
            Kind::Anonymous
        },
        // Stacks and reserves are large and mostly untouched.
        charge: if shared {
            Charge::Always
        } else if flags & MAP_STACK != 0 {
            Charge::Never
        } else if flags & MAP_NORESERVE != 0 {
            Charge::InParts
        } else {
            Charge::Always
        },
    };
    if flags & MAP_ANONYMOUS != 0 {
        return memory.map(&request);
    }
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let open = task.file(args.int(4))?;
    if flags & 3 == MAP_SHARED_VALIDATE && flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if open.file.is_zero() {
        return memory.map(&request);
    }
    let fd = open.file.host_fd().ok_or(Errno::ENODEV)?;
    let allowed = if shared && !open.writable() {
        Prot::READ | Prot::EXEC
    } else {
        Prot::all()
    };
    if !open.readable() || !allowed.contains(prot) {
        return Err(Errno::EACCES);
    }
    let request = MapRequest {
        allowed,
        backing: Backing::File { fd, offset, shared },
        // What a shared mapping writes belongs to the file, whose size is charged already.
        charge: if shared {
            Charge::Never
        } else {
            request.charge
        },
        kind: Kind::File {
            name: open.path.clone(),
            offset,
            shared,
        },
        ..request
    };
    memory.map(&request)
}

/// munmap(2)
pub fn munmap(task: &mut Task, args: Args) -> SysResult {
    task.kernel.board.unmapped();
    task.memory().unmap(args.word(0), args.word(1))?;
    DONE
}

/// mprotect(2)
pub fn mprotect(task: &mut Task, args: Args) -> SysResult {
    task.memory()
        .protect(args.word(0), args.word(1), Task::protection(args.flags(2))?)?;
    DONE
}

/// mremap(2)
pub fn mremap(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(3);
    if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED) != 0 {
        return Err(Errno::EINVAL);
    }
    let target = (flags & MREMAP_FIXED != 0).then(|| args.word(4));
    let may_move = flags & MREMAP_MAYMOVE != 0;
    task.kernel.board.unmapped();
    task.memory()
        .remap(args.word(0), args.word(1), args.word(2), target, may_move)
        .map(Into::into)
}

/// madvise(2)
pub fn madvise(task: &mut Task, args: Args) -> SysResult {
    let (address, len, advice) = (args.word(0), args.word(1), args.int(2));
    match advice {
        libc::MADV_DONTNEED
        | libc::MADV_FREE
        | libc::MADV_HUGEPAGE
        | libc::MADV_NOHUGEPAGE
        | libc::MADV_POPULATE_READ
        | libc::MADV_POPULATE_WRITE => {
            task.memory().advise(address, len, advice)?;
        }
        libc::MADV_NORMAL..=libc::MADV_WILLNEED
        | libc::MADV_DONTFORK
        | libc::MADV_DOFORK
        | libc::MADV_DONTDUMP
        | libc::MADV_DODUMP
        | libc::MADV_COLD
        | libc::MADV_PAGEOUT => task.memory().require_mapped(address, len)?,
        _ => return Err(Errno::EINVAL),
    }
    DONE
}

/// mincore(2): all pages that are mapped count as resident.
pub fn mincore(task: &mut Task, args: Args) -> SysResult {
    let (address, len) = (args.word(0), args.word(1));
    if address % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let memory = task.memory();
    memory.require_mapped(address, len)?;
    let mut left = len.div_ceil(PAGE_SIZE);
    let mut at = args.word(2);
    let resident = [1u8; 4096];
    while left > 0 {
        let count = left.min(resident.len() as u64);
        let part = resident.get(..count as usize).unwrap_or_default();
        memory.write(at, part)?;
        at = at.saturating_add(count);
        left = left.saturating_sub(count);
    }
    DONE
}

/// mlock(2) and munlock(2): nothing is ever swapped out, but the range is checked.
pub fn mlock(task: &mut Task, args: Args) -> SysResult {
    let start = args.word(0);
    let first = start.saturating_sub(start % PAGE_SIZE);
    let len = args.word(1).saturating_add(start % PAGE_SIZE);
    task.memory().require_mapped(first, len)?;
    DONE
}

/// mlock2(2)
pub fn mlock2(task: &mut Task, args: Args) -> SysResult {
    if args.flags(2) & !libc::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    mlock(task, args)
}

/// msync(2): mappings of files are those of the file itself, but the range is checked.
pub fn msync(task: &mut Task, args: Args) -> SysResult {
    let flags = args.int(2);
    let both = libc::MS_ASYNC | libc::MS_SYNC;
    if flags & !(both | libc::MS_INVALIDATE) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    task.memory().require_mapped(args.word(0), args.word(1))?;
    DONE
}

/// brk(2)
pub fn brk(task: &mut Task, args: Args) -> SysResult {
    Ok(task.memory().set_break(args.word(0)).into())
}
