//! Calls on descriptors that move no data.

use std::sync::Arc;

use vmm_abi::*;

use super::locks;
use super::transfer::file_too_large;
use crate::args::{Args, DONE, SysResult};
use crate::pipe::PipeEnd;
use crate::task::Task;

/// Status flags that F_SETFL may change.
const SETTABLE: u32 = O_APPEND | O_NONBLOCK;

/// close(2)
pub fn close(task: &mut Task, args: Args) -> SysResult {
    let open = task.kernel.files.lock().close(args.int(0))?;
    drop(open);
    DONE
}

/// close_range(2)
pub fn close_range(task: &mut Task, args: Args) -> SysResult {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    let (first, last, flags) = (args.flags(0), args.flags(1), args.flags(2));
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    let mut files = task.kernel.files.lock();
    let mut gone = Vec::new();
    for (fd, _) in files.list() {
        if !(first..=last).contains(&fd.unsigned_abs()) {
            continue;
        }
        if flags & CLOEXEC != 0 {
            files.set_close_on_exec(fd, true)?;
        } else {
            gone.push(files.close(fd)?);
        }
    }
    // Closed once the table is free: closing may wake others.
    drop(files);
    drop(gone);
    DONE
}

/// dup(2)
pub fn dup(task: &mut Task, args: Args) -> SysResult {
    duplicate(task, args.int(0), 0, false)
}

fn duplicate(task: &mut Task, fd: i32, lowest: u64, cloexec: bool) -> SysResult {
    let mut files = task.kernel.files.lock();
    let open = files.get(fd)?;
    let lowest = usize::try_from(lowest).map_err(|_| Errno::EINVAL)?;
    let fd = files.add(open, cloexec, lowest)?;
    Ok(u64::from(fd.unsigned_abs()).into())
}

/// dup2(2)
pub fn dup2(task: &mut Task, args: Args) -> SysResult {
    let (from, to) = (args.int(0), args.int(1));
    let mut files = task.kernel.files.lock();
    let open = files.get(from)?;
    if from != to {
        files.put(to, open, false)?;
    }
    Ok(u64::from(to.unsigned_abs()).into())
}

/// dup3(2)
pub fn dup3(task: &mut Task, args: Args) -> SysResult {
    let (from, to, flags) = (args.int(0), args.int(1), args.flags(2));
    if from == to || flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let mut files = task.kernel.files.lock();
    let open = files.get(from)?;
    files.put(to, open, flags & O_CLOEXEC != 0)?;
    Ok(u64::from(to.unsigned_abs()).into())
}

/// fcntl(2)
pub fn fcntl(task: &mut Task, args: Args) -> SysResult {
    let (fd, command, value) = (args.int(0), args.int(1), args.word(2));
    match command {
        libc::F_DUPFD => duplicate(task, fd, value & 0xffff_ffff, false),
        libc::F_DUPFD_CLOEXEC => duplicate(task, fd, value & 0xffff_ffff, true),
        libc::F_GETFD => Ok(u64::from(task.kernel.files.lock().close_on_exec(fd)?).into()),
        libc::F_SETFD => {
            task.kernel
                .files
                .lock()
                .set_close_on_exec(fd, value & 1 != 0)?;
            DONE
        }
        libc::F_GETFL => Ok(u64::from(task.named_file(fd)?.flags()).into()),
        libc::F_SETFL => {
            task.file(fd)?.set_flags(SETTABLE, value as u32);
            DONE
        }
        command if locks::is_command(command) => locks::fcntl(task, fd, command, value),
        libc::F_GETPIPE_SZ | libc::F_SETPIPE_SZ => {
            let open = task.file(fd)?;
            let end = open.file.as_any().downcast_ref::<PipeEnd>();
            let end = end.ok_or(Errno::EBADF)?;
            let size = if command == libc::F_SETPIPE_SZ {
                end.set_capacity(value & 0xffff_ffff)?
            } else {
                end.capacity()
            };
            Ok((size as u64).into())
        }
        libc::F_GET_SEALS => Ok(u64::from(task.file(fd)?.file.seals(None)?).into()),
        libc::F_ADD_SEALS => {
            let open = task.file(fd)?;
            if !open.writable() {
                return Err(Errno::EPERM);
            }
            open.file.seals(Some(value as u32))?;
            DONE
        }
        _ => Err(Errno::EINVAL),
    }
}

/// fallocate(2)
pub fn fallocate(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let offset = u64::try_from(args.signed(2)).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(args.signed(3)).map_err(|_| Errno::EINVAL)?;
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    if !open.writable() {
        return Err(Errno::EBADF);
    }
    if open.file.stat()?.mode & S_IFMT == S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    open.file.allocate(args.int(1), offset, len)?;
    DONE
}

/// fsync(2)
pub fn fsync(task: &mut Task, args: Args) -> SysResult {
    task.file(args.int(0))?;
    DONE
}

/// fadvise64(2)
pub fn fadvise(task: &mut Task, args: Args) -> SysResult {
    if task.file(args.int(0))?.file.size().is_none() {
        return Err(Errno::ESPIPE);
    }
    if !(0..=5).contains(&args.int(3)) {
        return Err(Errno::EINVAL);
    }
    DONE
}

/// ftruncate(2)
pub fn ftruncate(task: &mut Task, args: Args) -> SysResult {
    let size = u64::try_from(args.signed(1)).map_err(|_| Errno::EINVAL)?;
    let open = task.file(args.int(0))?;
    if !open.writable() {
        return Err(Errno::EINVAL);
    }
    if size > task.kernel.limits.lock().soft(libc::RLIMIT_FSIZE) {
        file_too_large(task);
        return Err(Errno::EFBIG);
    }
    open.file.truncate(size)?;
    DONE
}

/// lseek(2)
pub fn lseek(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let directory = open.file.stat()?.mode & S_IFMT == S_IFDIR;
    let size = match open.file.size() {
        Some(size) => size,
        None if directory || open.path.starts_with("anon_inode:") => 0,
        None => return Err(Errno::ESPIPE),
    };
    if !directory && matches!(args.int(2), libc::SEEK_DATA | libc::SEEK_HOLE) {
        let from = u64::try_from(args.signed(1)).map_err(|_| Errno::ENXIO)?;
        let found = open.file.seek_data(from, args.int(2) == libc::SEEK_HOLE)?;
        *open.position.lock() = found;
        return Ok(found.into());
    }
    let mut position = open.position.lock();
    let base = match args.int(2) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *position,
        libc::SEEK_END => size,
        _ => return Err(Errno::EINVAL),
    };
    let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
    let target = base.checked_add(args.signed(1)).ok_or(Errno::EINVAL)?;
    *position = u64::try_from(target).map_err(|_| Errno::EINVAL)?;
    Ok((*position).into())
}

/// ioctl(2)
pub fn ioctl(task: &mut Task, args: Args) -> SysResult {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    let (fd, request, argument) = (args.int(0), args.flags(1), args.word(2));
    let open = task.file(fd)?;
    match request {
        FIOCLEX | FIONCLEX => {
            task.kernel
                .files
                .lock()
                .set_close_on_exec(fd, request == FIOCLEX)?;
            DONE
        }
        FIONBIO => {
            let on: u32 = task.memory().read_value(argument)?;
            open.set_flags(O_NONBLOCK, if on != 0 { O_NONBLOCK } else { 0 });
            DONE
        }
        _ => open
            .file
            .ioctl(task.memory(), request, argument)
            .map(Into::into),
    }
}

/// getdents64(2); the position is the number of the next entry, counting `.` and `..`.
pub fn getdents(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let (address, len) = (args.word(1), args.word(2));
    let directory = open.file.stat()?;
    let mut entries = Vec::new();
    for name in [&b"."[..], b".."] {
        entries.push((name.to_vec(), directory.ino, 4));
    }
    let mut position = open.position.lock();
    let mut listing = open.listing.lock();
    // As they were at the beginning, so that none is missed while others are removed.
    let listed = match &*listing {
        Some(listed) if *position > 0 => Arc::clone(listed),
        _ => {
            let listed = Arc::new(open.file.entries()?);
            *listing = Some(Arc::clone(&listed));
            listed
        }
    };
    drop(listing);
    let named = |e: &crate::vfs::DirEntry| (e.name.clone(), e.ino, e.kind);
    entries.extend(listed.iter().map(named));
    let mut bytes: Vec<u8> = Vec::new();
    let mut next = *position;
    let first = usize::try_from(next).map_err(|_| Errno::EINVAL)?;
    for (name, ino, kind) in entries.iter().skip(first) {
        // struct linux_dirent64: ino, off, reclen, type, name with NUL, to a multiple of 8.
        let record = name.len().saturating_add(20).next_multiple_of(8);
        if bytes.len().saturating_add(record) as u64 > len {
            break;
        }
        next = next.saturating_add(1);
        let start = bytes.len();
        bytes.extend_from_slice(&ino.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        bytes.extend_from_slice(&(record as u16).to_le_bytes());
        bytes.push(*kind);
        bytes.extend_from_slice(name);
        bytes.resize(start.saturating_add(record), 0);
    }
    if bytes.is_empty() && first < entries.len() {
        return Err(Errno::EINVAL);
    }
    Arc::clone(&task.kernel).memory.write(address, &bytes)?;
    *position = next;
    Ok((bytes.len() as u64).into())
}
