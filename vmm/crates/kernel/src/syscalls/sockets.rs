//! Socket calls. So far they serve the connected host socket that a guest is given at 3.

use vmm_abi::*;
use vmm_memory::AddressSpace;

use super::transfer::until_ready;
use crate::args::{Args, DONE, SysResult};
use crate::stream::HostStream;
use crate::task::Task;

fn stream(task: &Task, fd: i32) -> Result<std::sync::Arc<crate::OpenFile>, Errno> {
    let open = task.file(fd)?;
    match open.file.as_any().downcast_ref::<HostStream>() {
        Some(stream) if stream.is_socket() => Ok(open),
        _ => Err(Errno::ENOTSOCK),
    }
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
    let stream = open
        .file
        .as_any()
        .downcast_ref::<HostStream>()
        .ok_or(Errno::ENOTSOCK)?;
    stream.shutdown(args.int(1))?;
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
