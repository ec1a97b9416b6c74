//! Sending and receiving on sockets, with addresses and control messages.

use std::sync::Arc;

use vmm_abi::*;
use vmm_memory::AddressSpace;
use zerocopy::IntoBytes;

use super::sockets::{Known, find, known, read_address, write_address};
use super::transfer::{Outcome, Waiting, attempt_or_wait, broken_pipe, rest_of, total, until_all};
use crate::args::{Args, Ret, SysResult, optional_time};
use crate::clock;
use crate::file::OpenFile;
use crate::socket::{Address, Family, Kind, Received, Rights, Socket, Target, Want};
use crate::task::Task;

const MSG_OOB: u32 = libc::MSG_OOB.unsigned_abs();
const MSG_PEEK: u32 = libc::MSG_PEEK.unsigned_abs();
const MSG_CTRUNC: u32 = libc::MSG_CTRUNC.unsigned_abs();
const MSG_TRUNC: u32 = libc::MSG_TRUNC.unsigned_abs();
const MSG_DONTWAIT: u32 = libc::MSG_DONTWAIT.unsigned_abs();
const MSG_WAITALL: u32 = libc::MSG_WAITALL.unsigned_abs();
const MSG_ERRQUEUE: u32 = libc::MSG_ERRQUEUE.unsigned_abs();
const MSG_NOSIGNAL: u32 = libc::MSG_NOSIGNAL.unsigned_abs();
const MSG_WAITFORONE: u32 = libc::MSG_WAITFORONE.unsigned_abs();
const MSG_FASTOPEN: u32 = libc::MSG_FASTOPEN.unsigned_abs();
const MSG_CMSG_CLOEXEC: u32 = libc::MSG_CMSG_CLOEXEC.unsigned_abs();

/// Descriptors in one message (SCM_MAX_FD), and bytes of control messages that are looked at.
const MAX_RIGHTS: usize = 253;
const MAX_CONTROL: u64 = 20_480;
/// `struct cmsghdr`: length, level, type; what follows is aligned to 8.
const CONTROL_HEADER: usize = 16;
/// Most messages of one sendmmsg(2) or recvmmsg(2) (UIO_MAXIOV).
const MAX_MESSAGES: u64 = 1024;
/// Bytes of `struct mmsghdr`, and where in it the length of the message is.
const MMSGHDR: u64 = 64;
const MMSG_LEN: u64 = 56;

/// What one message is sent with.
struct Outgoing {
    list: Vec<Iovec>,
    target: Target,
    rights: Rights,
}

/// Sends one message. With `whole` a stream takes all of it unless the call may not wait.
fn send(task: &mut Task, open: &OpenFile, flags: u32, message: Outgoing, whole: bool) -> SysResult {
    if flags & (MSG_OOB | MSG_FASTOPEN) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let Outgoing {
        list,
        target,
        mut rights,
    } = message;
    let mut how = Waiting {
        at_once: flags & MSG_DONTWAIT != 0,
        ..Waiting::plain(EPOLLOUT)
    };
    let result = match known(open)? {
        Known::Host(_) => until_all(task, open, how, &list, |memory, rest| {
            open.file.write(memory, rest, 0)
        }),
        Known::Own(socket) => {
            how.timeout_ns = socket.timeout_ns(true);
            let also = match &target {
                Target::Unix(found) => Some(found.queue()),
                _ => None,
            };
            if socket.kind() == Kind::Stream && whole {
                until_all(task, open, how, &list, |memory, rest| {
                    socket.send(memory, rest, &target, &mut rights)
                })
            } else {
                let attempt =
                    |memory: &AddressSpace| socket.send(memory, &list, &target, &mut rights);
                match attempt_or_wait(task, open, how, also, attempt) {
                    Ok(Outcome::Done(count)) => Ok(count.into()),
                    Ok(Outcome::Block(restart)) => Ok(Ret::Block(restart)),
                    Err(errno) => Err(errno),
                }
            }
        }
    };
    let stream = !matches!(known(open)?, Known::Own(socket) if socket.kind() != Kind::Stream);
    if result == Err(Errno::EPIPE) && flags & MSG_NOSIGNAL == 0 && stream {
        broken_pipe(task);
    }
    result
}

/// Whom a message with that address is for.
fn target(task: &Task, open: &OpenFile, address: u64, len: u32) -> Result<Target, Errno> {
    let socket = match known(open)? {
        Known::Own(socket) => socket,
        Known::Host(_) if address == 0 => return Ok(Target::Peer),
        Known::Host(_) => return Err(Errno::EISCONN),
    };
    if address == 0 || len == 0 {
        return Ok(Target::Peer);
    }
    match (socket.kind(), socket.family()) {
        (Kind::Stream, Family::Unix) if socket.peer_name().is_ok() => return Err(Errno::EISCONN),
        (Kind::Stream, Family::Unix) => return Err(Errno::EOPNOTSUPP),
        (Kind::Stream | Kind::SeqPacket, _) => return Ok(Target::Peer),
        _ => {}
    }
    match read_address(task, socket, address, len)? {
        Address::Inet(address) => Ok(Target::Inet(address)),
        Address::Unix(name) => Ok(Target::Unix(find(task, socket, &name)?)),
        Address::Unspecified => Ok(Target::Peer),
    }
}

/// sendto(2)
pub fn sendto(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    known(&open)?;
    let message = Outgoing {
        list: AddressSpace::single(args.word(1), args.word(2)).to_vec(),
        target: target(task, &open, args.word(4), args.flags(5))?,
        rights: Rights::default(),
    };
    send(task, &open, args.flags(3), message, true)
}

/// `struct msghdr`: name, its length, iov, its count, control, its length, flags.
type Header = [u64; 7];

fn outgoing(task: &Task, open: &OpenFile, header: Header) -> Result<Outgoing, Errno> {
    let [name, name_len, iov, count, control, control_len, _] = header;
    let list = task.memory().read_iovecs(iov, count).map_err(too_many)?;
    let target = target(task, open, name, name_len as u32)?;
    let rights = match known(open)? {
        _ if control == 0 || control_len == 0 => Rights::default(),
        Known::Own(socket) => read_control(task, socket, control, control_len)?,
        Known::Host(_) => return Err(Errno::EOPNOTSUPP),
    };
    Ok(Outgoing {
        list,
        target,
        rights,
    })
}

/// Messages refuse too many ranges by another name than read(2) does.
fn too_many(errno: Errno) -> Errno {
    if errno == Errno::EINVAL {
        Errno::EMSGSIZE
    } else {
        errno
    }
}

/// The open files that control messages name.
fn read_control(task: &Task, socket: &Socket, at: u64, len: u64) -> Result<Rights, Errno> {
    if len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0u8; len as usize];
    task.memory().read(at, &mut bytes)?;
    let mut files = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((head, _)) = rest.split_first_chunk::<CONTROL_HEADER>() {
        let (len, kind) = head.split_at(8);
        let len = usize::try_from(word(len)).map_err(|_| Errno::EINVAL)?;
        let data = rest.get(CONTROL_HEADER..len).ok_or(Errno::EINVAL)?;
        let (level, kind) = kind.split_at(4);
        let unix = socket.family() == Family::Unix;
        match (number(level), number(kind)) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) if unix => {
                for fd in data.chunks_exact(4) {
                    files.push(task.file(number(fd))?);
                }
                if data.len() % 4 != 0 || files.len() > MAX_RIGHTS {
                    return Err(Errno::EINVAL);
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if unix => {
                let own = [task.kernel.identity.pid, 0, 0];
                if data.get(..12) != Some(own.as_bytes()) {
                    return Err(Errno::EPERM);
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        let next = len.checked_next_multiple_of(8).ok_or(Errno::EINVAL)?;
        rest = rest.get(next..).unwrap_or_default();
    }
    if files.is_empty() || task.progress() > 0 {
        return Ok(Rights::default());
    }
    Rights::new(files, &task.kernel.network)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
}

fn number(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b))
}

/// sendmsg(2)
pub fn sendmsg(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    known(&open)?;
    let header: Header = task.memory().read_value(args.word(1))?;
    let message = outgoing(task, &open, header)?;
    send(task, &open, args.flags(2), message, true)
}

/// sendmmsg(2)
pub fn sendmmsg(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(3);
    each_message(task, args, |task, open, at, _| {
        let header: Header = task.memory().read_value(at)?;
        let message = outgoing(task, open, header)?;
        send(task, open, flags, message, false)
    })
}

/// Calls `one` for each message and notes its length; an error after the first is left for the next call.
/// What a stream took of a message is its length then: it never waits for the rest.
fn each_message(
    task: &mut Task,
    args: Args,
    mut one: impl FnMut(&mut Task, &OpenFile, u64, u64) -> SysResult,
) -> SysResult {
    let open = task.file(args.int(0))?;
    known(&open)?;
    let count = u64::from(args.flags(2)).min(MAX_MESSAGES);
    let mut done = task.progress();
    while done < count {
        let at = args.word(1).wrapping_add(done.saturating_mul(MMSGHDR));
        // The number of messages is what this call has moved, not the bytes of one.
        task.set_progress(0);
        let result = one(task, &open, at, done);
        match result {
            Ok(Ret::Value(len)) => {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                task.memory().write_value(at.wrapping_add(MMSG_LEN), &len)?;
                done = done.saturating_add(1);
                task.set_progress(done);
            }
            Ok(Ret::Block(restart)) => {
                task.set_progress(done);
                return Ok(Ret::Block(restart));
            }
            Err(_) if done > 0 => break,
            other => return other,
        }
    }
    Ok(done.into())
}

/// Receives once, or with MSG_WAITALL until the ranges are full; answers the bytes and what came last.
fn receive(
    task: &mut Task,
    open: &Arc<OpenFile>,
    list: &[Iovec],
    flags: u32,
) -> Result<Outcome<(u64, Received)>, Errno> {
    if flags & MSG_ERRQUEUE != 0 {
        return Err(Errno::EAGAIN);
    }
    if flags & MSG_OOB != 0 {
        return Err(Errno::EINVAL);
    }
    let mut how = Waiting {
        at_once: flags & MSG_DONTWAIT != 0,
        ..Waiting::plain(EPOLLIN)
    };
    let want = Want {
        peek: flags & MSG_PEEK != 0,
    };
    let mut all = flags & MSG_WAITALL != 0 && !want.peek;
    match known(open)? {
        Known::Own(socket) => {
            how.timeout_ns = socket.timeout_ns(false);
            all &= socket.kind() == Kind::Stream;
        }
        Known::Host(_) if want.peek => return Err(Errno::EOPNOTSUPP),
        Known::Host(_) => {}
    }
    loop {
        let before = if all { task.progress() } else { 0 };
        let rest = rest_of(list, before);
        let attempt = |memory: &AddressSpace| match known(open)? {
            Known::Own(socket) => socket.receive(memory, &rest, want),
            Known::Host(_) => {
                let count = open.file.read(memory, &rest, 0)? as usize;
                Ok(Received {
                    count,
                    len: count,
                    ..Received::default()
                })
            }
        };
        let received = match attempt_or_wait(task, open, how, None, attempt) {
            Ok(Outcome::Done(received)) => received,
            Ok(Outcome::Block(restart)) => return Ok(Outcome::Block(restart)),
            Err(_) if before > 0 => Received::default(),
            Err(errno) => return Err(errno),
        };
        let sum = before.saturating_add(received.count as u64);
        let over = received.count == 0 || !received.files.is_empty() || sum >= total(list);
        if !all || over || how.at_once || open.nonblocking() {
            return Ok(Outcome::Done((sum, received)));
        }
        task.set_progress(sum);
    }
}

/// What recv(2) answers: with MSG_TRUNC the length of the whole message.
fn answer(count: u64, received: &Received, flags: u32) -> u64 {
    if flags & MSG_TRUNC != 0 && received.len > received.count {
        received.len as u64
    } else {
        count
    }
}

fn source(open: &OpenFile, received: &Received) -> Vec<u8> {
    match (known(open), &received.from) {
        (Ok(Known::Own(socket)), Some(from)) => from.to_bytes(socket.family()),
        _ => Vec::new(),
    }
}

/// recvfrom(2)
pub fn recvfrom(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    known(&open)?;
    let list = AddressSpace::single(args.word(1), args.word(2));
    let flags = args.flags(3);
    let (count, received) = match receive(task, &open, &list, flags)? {
        Outcome::Done(done) => done,
        Outcome::Block(restart) => return Ok(Ret::Block(restart)),
    };
    if args.word(4) != 0 {
        let from = source(&open, &received);
        write_address(task, &from, args.word(4), args.word(5))?;
    }
    Ok(answer(count, &received, flags).into())
}

/// recvmsg(2)
pub fn recvmsg(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    known(&open)?;
    receive_message(task, &open, args.word(1), args.flags(2))
}

fn receive_message(task: &mut Task, open: &Arc<OpenFile>, at: u64, flags: u32) -> SysResult {
    let [name, name_len, iov, count, control, control_len, _]: Header =
        task.memory().read_value(at)?;
    let list = task.memory().read_iovecs(iov, count).map_err(too_many)?;
    let (count, received) = match receive(task, open, &list, flags)? {
        Outcome::Done(done) => done,
        Outcome::Block(restart) => return Ok(Ret::Block(restart)),
    };
    let mut shown = flags & MSG_CMSG_CLOEXEC;
    if received.len > received.count {
        shown |= MSG_TRUNC;
    }
    let mut name_len = name_len as u32;
    if name != 0 {
        let from = source(open, &received);
        let room = usize::try_from(name_len as i32).map_err(|_| Errno::EINVAL)?;
        let part = from.get(..from.len().min(room)).unwrap_or_default();
        task.memory().write(name, part)?;
        name_len = u32::try_from(from.len()).unwrap_or(0);
    }
    let controls = write_control(task, open, &received, (control, control_len), flags)?;
    if controls.cut {
        shown |= MSG_CTRUNC;
    }
    let after: Header = [
        name,
        u64::from(name_len),
        iov,
        list.len() as u64,
        control,
        controls.len as u64,
        u64::from(shown),
    ];
    task.memory().write_value(at, &after)?;
    Ok(answer(count, &received, flags).into())
}

/// Control messages that were written.
struct Written {
    len: usize,
    /// Whether some found no room (MSG_CTRUNC).
    cut: bool,
}

fn write_control(
    task: &Task,
    open: &OpenFile,
    received: &Received,
    (at, room): (u64, u64),
    flags: u32,
) -> Result<Written, Errno> {
    let room = if at == 0 {
        0
    } else {
        room.min(MAX_CONTROL) as usize
    };
    let mut bytes = Vec::new();
    let mut cut = false;
    let credentials = match known(open)? {
        Known::Own(socket) => socket.family() == Family::Unix && socket.passes_credentials(),
        Known::Host(_) => false,
    };
    if credentials {
        let own = [task.kernel.identity.pid, 0, 0];
        cut |= !add_control(&mut bytes, room, libc::SCM_CREDENTIALS, own.as_bytes());
    }
    let mut numbers = Vec::new();
    let left = room.saturating_sub(bytes.len().saturating_add(CONTROL_HEADER)) / 4;
    let mut table = task.kernel.files.lock();
    for file in &received.files {
        let cloexec = flags & MSG_CMSG_CLOEXEC != 0;
        let added = if numbers.len() < left {
            table.add(Arc::clone(file), cloexec, 0).ok()
        } else {
            None
        };
        match added {
            Some(fd) => numbers.push(fd),
            None => cut = true,
        }
    }
    drop(table);
    if !numbers.is_empty() {
        add_control(&mut bytes, room, libc::SCM_RIGHTS, numbers.as_bytes());
    }
    task.memory().write(at, &bytes)?;
    let len = bytes.len();
    Ok(Written { len, cut })
}

/// Adds a control message; false when it had to be cut to the room, or left out.
fn add_control(bytes: &mut Vec<u8>, room: usize, kind: i32, data: &[u8]) -> bool {
    let left = room.saturating_sub(bytes.len());
    if left < CONTROL_HEADER {
        return false;
    }
    let whole = CONTROL_HEADER.saturating_add(data.len());
    let len = whole.min(left);
    let start = bytes.len();
    bytes.extend_from_slice(&(len as u64).to_ne_bytes());
    bytes.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend(data.iter().take(len.saturating_sub(CONTROL_HEADER)));
    let padded = whole.next_multiple_of(8).min(left);
    bytes.resize(start.saturating_add(padded), 0);
    len == whole
}

/// recvmmsg(2)
pub fn recvmmsg(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(3);
    if let Some(timeout) = optional_time(task.memory(), args.word(4))? {
        task.set_deadline(clock::deadline(libc::CLOCK_MONOTONIC, timeout, false)?);
    }
    let open = task.file(args.int(0))?;
    each_message(task, args, |task, _, at, done| {
        let at_once = if flags & MSG_WAITFORONE != 0 && done > 0 {
            MSG_DONTWAIT
        } else {
            0
        };
        receive_message(task, &open, at, (flags & !MSG_WAITALL) | at_once)
    })
}
