//! Socket calls. They serve the connected host socket that a guest is given at 3, and pairs of the guest's own.

use std::sync::atomic::{AtomicU64, Ordering};

use vmm_abi::*;
use vmm_memory::AddressSpace;

use super::transfer::until_ready;
use crate::args::{Args, DONE, SysResult};
use crate::file::OpenFile;
use crate::socket_pair::{PairEnd, socket_pair};
use crate::stream::HostStream;
use crate::task::Task;

fn stream(task: &Task, fd: i32) -> Result<std::sync::Arc<crate::OpenFile>, Errno> {
    let open = task.file(fd)?;
    let file = open.file.as_any();
    let given = file.downcast_ref::<HostStream>();
    if given.is_some_and(HostStream::is_socket) || file.is::<PairEnd>() {
        Ok(open)
    } else {
        Err(Errno::ENOTSOCK)
    }
}

/// socketpair(2)
pub fn socketpair(task: &mut Task, args: Args) -> SysResult {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    let (domain, kind, protocol) = (args.int(0), args.flags(1), args.int(2));
    let flags = kind & (O_CLOEXEC | O_NONBLOCK);
    if domain != libc::AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind & !flags != libc::SOCK_STREAM.unsigned_abs() {
        return Err(Errno::EOPNOTSUPP);
    }
    if protocol != 0 {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let ino = NEXT.fetch_add(2, Ordering::Relaxed);
    let (one, other) = socket_pair(ino);
    let (cloexec, status) = (flags & O_CLOEXEC != 0, (flags & O_NONBLOCK) | O_RDWR);
    let open = |end, ino| OpenFile::new(end, format!("socket:[{ino}]"), status);
    let mut files = task.kernel.files.lock();
    let first = files.add(open(one, ino), cloexec, 0)?;
    let second = files.add(open(other, ino.saturating_add(1)), cloexec, 0);
    drop(files);
    let told = match second {
        Ok(second) => {
            let told = task.memory().write_value(args.word(3), &[first, second]);
            if told.is_err() {
                let _ = task.kernel.files.lock().close(second);
            }
            told
        }
        Err(errno) => Err(errno),
    };
    if let Err(errno) = told {
        let _ = task.kernel.files.lock().close(first);
        return Err(errno);
    }
    DONE
}

/// getsockopt(2)
pub fn getsockopt(task: &mut Task, args: Args) -> SysResult {
    stream(task, args.int(0))?;
    let value = match (args.int(1), args.int(2)) {
        (libc::SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => libc::AF_UNIX,
        (libc::SOL_SOCKET, libc::SO_PROTOCOL | libc::SO_ERROR | libc::SO_ACCEPTCONN) => 0,
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF) => 212_992,
        _ => return Err(Errno::ENOPROTOOPT),
    };
    let len: u32 = task.memory().read_value(args.word(4))?;
    let bytes = value.to_ne_bytes();
    let shown = bytes
        .get(..bytes.len().min(len as usize))
        .unwrap_or_default();
    task.memory().write(args.word(3), shown)?;
    task.memory()
        .write_value(args.word(4), &(shown.len() as u32))?;
    DONE
}

/// getsockname(2) and getpeername(2): an unnamed Unix socket.
pub fn unnamed(task: &mut Task, args: Args) -> SysResult {
    stream(task, args.int(0))?;
    let len: u32 = task.memory().read_value(args.word(2))?;
    let family = (libc::AF_UNIX as u16).to_ne_bytes();
    let shown = family
        .get(..family.len().min(len as usize))
        .unwrap_or_default();
    task.memory().write(args.word(1), shown)?;
    task.memory().write_value(args.word(2), &2u32)?;
    DONE
}

/// shutdown(2)
pub fn shutdown(task: &mut Task, args: Args) -> SysResult {
    let open = stream(task, args.int(0))?;
    let file = open.file.as_any();
    if let Some(end) = file.downcast_ref::<PairEnd>() {
        end.shutdown(args.int(1))?;
    } else {
        let stream = file.downcast_ref::<HostStream>().ok_or(Errno::ENOTSOCK)?;
        stream.shutdown(args.int(1))?;
    }
    DONE
}

fn check(flags: u32, address: u64) -> Result<bool, Errno> {
    let known = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_CMSG_CLOEXEC).unsigned_abs();
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if address != 0 {
        return Err(Errno::EISCONN);
    }
    Ok(flags & libc::MSG_DONTWAIT.unsigned_abs() != 0)
}

fn transfer(task: &mut Task, fd: i32, list: &[Iovec], at_once: bool, send: bool) -> SysResult {
    let open = stream(task, fd)?;
    let file = std::sync::Arc::clone(&open.file);
    let attempt = |memory: &AddressSpace| {
        if send {
            file.write(memory, list, 0)
        } else {
            file.read(memory, list, 0)
        }
    };
    if at_once {
        return attempt(task.memory()).map(Into::into);
    }
    until_ready(task, &open, if send { EPOLLOUT } else { EPOLLIN }, attempt)
}

/// sendto(2)
pub fn sendto(task: &mut Task, args: Args) -> SysResult {
    let at_once = check(args.flags(3), args.word(4))?;
    let list = AddressSpace::single(args.word(1), args.word(2));
    transfer(task, args.int(0), &list, at_once, true)
}

/// recvfrom(2)
pub fn recvfrom(task: &mut Task, args: Args) -> SysResult {
    let at_once = check(args.flags(3), 0)?;
    let list = AddressSpace::single(args.word(1), args.word(2));
    transfer(task, args.int(0), &list, at_once, false)
}

/// `struct msghdr`: name, iov and control with their lengths.
type Message = [u64; 7];

/// sendmsg(2)
pub fn sendmsg(task: &mut Task, args: Args) -> SysResult {
    let [name, _, iov, count, _, control_len, _]: Message =
        task.memory().read_value(args.word(1))?;
    if control_len != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let at_once = check(args.flags(2), name)?;
    let list = task.memory().read_iovecs(iov, count)?;
    transfer(task, args.int(0), &list, at_once, true)
}

/// recvmsg(2): no names and no control messages arrive.
pub fn recvmsg(task: &mut Task, args: Args) -> SysResult {
    let [name, _, iov, count, control, _, _]: Message = task.memory().read_value(args.word(1))?;
    let at_once = check(args.flags(2), 0)?;
    let list = task.memory().read_iovecs(iov, count)?;
    let result = transfer(task, args.int(0), &list, at_once, false);
    if let Ok(crate::Ret::Value(_)) = result {
        let after: Message = [name, 0, iov, count, control, 0, 0];
        task.memory().write_value(args.word(1), &after)?;
    }
    result
}
