//! mmap and its family.

use vmm_abi::*;
use vmm_memory::{Backing, Kind, MapRequest, Place};

use crate::args::{Args, DONE, SysResult};
use crate::task::Task;

/// mmap(2)
pub fn mmap(task: &mut Task, args: Args) -> SysResult {
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
    } else {
        Place::Anywhere(address)
    };
    let memory = &task.kernel.memory;
    let request = MapRequest {
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
        // Stacks and reserves are large and mostly untouched: what is touched of them is limited by
        // the sandbox's cgroup.
        charged: flags & (MAP_NORESERVE | MAP_STACK) == 0,
    };
    if flags & MAP_ANONYMOUS != 0 {
        return memory.map(&request).map(Into::into);
    }
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let open = task.file(args.int(4))?;
    let fd = open.file.host_fd().ok_or(Errno::ENODEV)?;
    if !open.readable() || (shared && prot.contains(Prot::WRITE)) {
        return Err(Errno::EACCES);
    }
    let request = MapRequest {
        backing: Backing::File { fd, offset, shared },
        kind: Kind::File {
            name: open.path.clone(),
            offset,
            shared,
        },
        ..request
    };
    memory.map(&request).map(Into::into)
}

/// munmap(2)
pub fn munmap(task: &mut Task, args: Args) -> SysResult {
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
    task.memory()
        .remap(args.word(0), args.word(1), args.word(2), target, may_move)
        .map(Into::into)
}

/// madvise(2)
pub fn madvise(task: &mut Task, args: Args) -> SysResult {
    let (address, len, advice) = (args.word(0), args.word(1), args.int(2));
    match advice {
        libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE => {
            task.memory().advise(address, len, advice)?;
        }
        libc::MADV_NORMAL..=libc::MADV_WILLNEED
        | libc::MADV_DONTFORK
        | libc::MADV_DOFORK
        | libc::MADV_DONTDUMP
        | libc::MADV_DODUMP
        | libc::MADV_COLD
        | libc::MADV_PAGEOUT => {}
        _ => return Err(Errno::EINVAL),
    }
    DONE
}

/// brk(2)
pub fn brk(task: &mut Task, args: Args) -> SysResult {
    Ok(task.memory().set_break(args.word(0)).into())
}
