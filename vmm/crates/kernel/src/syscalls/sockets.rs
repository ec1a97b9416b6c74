//! Making, naming and connecting sockets. The connected host socket that a guest is given at 3 is one too.

use std::sync::Arc;

use vmm_abi::*;

use super::paths::walk;
use super::transfer::{Outcome, Waiting, attempt_or_wait};
use crate::args::{Args, DONE, Ret, SysResult};
use crate::file::OpenFile;
use crate::socket::{Address, Family, Found, Kind, MAX_ADDRESS_BYTES, Network, Socket, UnixName};
use crate::stream::HostStream;
use crate::task::Task;

/// A file that the socket calls serve.
pub(super) enum Known<'a> {
    /// The guest's own.
    Own(&'a Socket),
    /// Of the host, connected and without a name.
    Host(&'a HostStream),
}

/// The socket that an open file is.
///
/// # Errors
/// ENOTSOCK.
pub(super) fn known(open: &OpenFile) -> Result<Known<'_>, Errno> {
    let file = open.file.as_any();
    if let Some(socket) = file.downcast_ref::<Socket>() {
        return Ok(Known::Own(socket));
    }
    let given = file.downcast_ref::<HostStream>();
    let given = given.filter(|stream| stream.is_socket());
    given.map(Known::Host).ok_or(Errno::ENOTSOCK)
}

/// The guest's own socket behind an open file.
///
/// # Errors
/// ENOTSOCK, and EOPNOTSUPP for the socket at 3.
fn own(open: &OpenFile) -> Result<&Socket, Errno> {
    match known(open)? {
        Known::Own(socket) => Ok(socket),
        Known::Host(_) => Err(Errno::EOPNOTSUPP),
    }
}

/// Type, protocol and SOCK_* flags as socket(2) gives them.
fn parse(args: Args) -> Result<(Family, Kind, u32), Errno> {
    const FLAGS: u32 = O_CLOEXEC | O_NONBLOCK;
    let flags = args.flags(1) & FLAGS;
    let kind = args.flags(1) & !FLAGS;
    if kind & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    let family = Family::of(args.int(0))?;
    let kind = i32::try_from(kind).map_err(|_| Errno::EINVAL)?;
    let kind = Kind::of(family, kind, args.int(2))?;
    Ok((family, kind, flags))
}

fn open_file(socket: Arc<Socket>, flags: u32) -> Arc<OpenFile> {
    let name = format!("socket:[{}]", socket.ino());
    OpenFile::new(socket, name, (flags & O_NONBLOCK) | O_RDWR)
}

/// socket(2)
pub fn socket(task: &mut Task, args: Args) -> SysResult {
    let (family, kind, flags) = parse(args)?;
    let open = open_file(Socket::new(family, kind, &task.kernel.network), flags);
    task.add_file(open, flags & O_CLOEXEC != 0)
}

/// socketpair(2)
pub fn socketpair(task: &mut Task, args: Args) -> SysResult {
    let (family, kind, flags) = parse(args)?;
    if family != Family::Unix {
        return Err(Errno::EOPNOTSUPP);
    }
    let (one, other) = Socket::pair(kind, &task.kernel.network);
    let pair = (open_file(one, flags), open_file(other, flags));
    task.add_two_files(pair, flags & O_CLOEXEC != 0, args.word(3))
}

/// Reads an address of `len` bytes for a socket.
///
/// # Errors
/// EINVAL for a wrong length, EFAULT, and those of [`Address::parse`].
pub(super) fn read_address(
    task: &Task,
    socket: &Socket,
    at: u64,
    len: u32,
) -> Result<Address, Errno> {
    let len = len as usize;
    if len > MAX_ADDRESS_BYTES {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0u8; len];
    task.memory().read(at, &mut bytes)?;
    Address::parse(socket.family(), &bytes)
}

/// Writes as much of an address as finds room, and its whole length.
///
/// # Errors
/// EFAULT, EINVAL for a negative length.
pub(super) fn write_address(task: &Task, bytes: &[u8], at: u64, len_at: u64) -> Result<(), Errno> {
    let room: i32 = task.memory().read_value(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let shown = bytes.get(..bytes.len().min(room)).unwrap_or_default();
    task.memory().write(at, shown)?;
    let len = u32::try_from(bytes.len()).unwrap_or(0);
    task.memory().write_value(len_at, &len)
}

/// Whom a Unix address names.
///
/// # Errors
/// ECONNREFUSED when nobody listens to it, and those of walking a path.
pub(super) fn find(task: &Task, socket: &Socket, name: &UnixName) -> Result<Found, Errno> {
    let UnixName::Path(path) = name else {
        return socket.hidden_peer(name);
    };
    let stat = walk(task, AT_FDCWD, path, true)?.node()?.stat()?;
    if stat.mode & S_IFMT != S_IFSOCK {
        return Err(Errno::ECONNREFUSED);
    }
    socket.node_peer((stat.dev, stat.ino))
}

/// bind(2)
pub fn bind(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let socket = own(&open)?;
    let address = read_address(task, socket, args.word(1), args.flags(2))?;
    let Address::Unix(UnixName::Path(path)) = address else {
        socket.bind(&address)?;
        return DONE;
    };
    let walked = walk(task, AT_FDCWD, &path, false)?;
    if walked.node.is_some() {
        return Err(Errno::EADDRINUSE);
    }
    if socket.is_bound() {
        return Err(Errno::EINVAL);
    }
    let mode = S_IFSOCK | (0o777 & !*task.kernel.umask.lock());
    let made = walked.parent.create(&walked.name, mode, None);
    let stat = made.map_err(in_use)?.stat()?;
    socket.bind_node(path, (stat.dev, stat.ino));
    DONE
}

fn in_use(errno: Errno) -> Errno {
    if errno == Errno::EEXIST {
        Errno::EADDRINUSE
    } else {
        errno
    }
}

/// listen(2)
pub fn listen(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    own(&open)?.listen(args.int(1))?;
    DONE
}

/// connect(2)
pub fn connect(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let socket = match known(&open)? {
        Known::Own(socket) => socket,
        Known::Host(_) => return Err(Errno::EISCONN),
    };
    match read_address(task, socket, args.word(1), args.flags(2))? {
        Address::Unspecified => socket.disconnect()?,
        Address::Inet(address) => socket.connect_inet(address)?,
        Address::Unix(name) => {
            let found = find(task, socket, &name)?;
            let how = Waiting {
                timeout_ns: socket.timeout_ns(true),
                ..Waiting::plain(EPOLLOUT)
            };
            let attempt = |_: &vmm_memory::AddressSpace| socket.connect_unix(&found);
            let outcome = attempt_or_wait(task, &open, how, Some(found.queue()), attempt)?;
            if let Outcome::Block(restart) = outcome {
                return Ok(Ret::Block(restart));
            }
        }
    }
    DONE
}

/// accept(2)
pub fn accept(task: &mut Task, args: Args) -> SysResult {
    accept_with(task, args, 0)
}

/// accept4(2)
pub fn accept4(task: &mut Task, args: Args) -> SysResult {
    let flags = args.flags(3);
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    accept_with(task, args, flags)
}

fn accept_with(task: &mut Task, args: Args, flags: u32) -> SysResult {
    let open = task.file(args.int(0))?;
    let socket = match known(&open)? {
        Known::Own(socket) => socket,
        Known::Host(_) => return Err(Errno::EINVAL),
    };
    let how = Waiting {
        timeout_ns: socket.timeout_ns(false),
        ..Waiting::plain(EPOLLIN)
    };
    let accepted = match attempt_or_wait(task, &open, how, None, |_| socket.accept())? {
        Outcome::Done(accepted) => accepted,
        Outcome::Block(restart) => return Ok(Ret::Block(restart)),
    };
    if args.word(1) != 0 {
        // A peer that has gone already leaves its name.
        let name = accepted.peer_name()?.to_bytes(accepted.family());
        write_address(task, &name, args.word(1), args.word(2))?;
    }
    task.add_file(open_file(accepted, flags), flags & O_CLOEXEC != 0)
}

/// The name of the socket at 3, which has none.
fn unnamed() -> Vec<u8> {
    Address::Unix(UnixName::Unnamed).to_bytes(Family::Unix)
}

/// getsockname(2)
pub fn getsockname(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let name = match known(&open)? {
        Known::Own(socket) => socket.name().to_bytes(socket.family()),
        Known::Host(_) => unnamed(),
    };
    write_address(task, &name, args.word(1), args.word(2))?;
    DONE
}

/// getpeername(2)
pub fn getpeername(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let name = match known(&open)? {
        Known::Own(socket) => socket.peer_name()?.to_bytes(socket.family()),
        Known::Host(_) => unnamed(),
    };
    write_address(task, &name, args.word(1), args.word(2))?;
    DONE
}

/// shutdown(2)
pub fn shutdown(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    match known(&open)? {
        Known::Own(socket) => socket.shutdown(args.int(1))?,
        Known::Host(stream) => stream.shutdown(args.int(1))?,
    }
    DONE
}

/// getsockopt(2)
pub fn getsockopt(task: &mut Task, args: Args) -> SysResult {
    let open = task.file(args.int(0))?;
    let len: i32 = task.memory().read_value(args.word(4))?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let (level, name) = (args.int(1), args.int(2));
    let value = match known(&open)? {
        Known::Own(socket) => socket.option(level, name, task.kernel.identity.pid)?,
        Known::Host(_) => {
            // It shows what a socket of the guest's own that is connected would.
            let (like, _peer) = Socket::pair(Kind::Stream, &Arc::<Network>::default());
            like.option(level, name, task.kernel.identity.pid)?
        }
    };
    let shown = value.get(..value.len().min(len)).unwrap_or_default();
    task.memory().write(args.word(3), shown)?;
    let len = u32::try_from(shown.len()).unwrap_or(0);
    task.memory().write_value(args.word(4), &len)?;
    DONE
}

/// setsockopt(2)
pub fn setsockopt(task: &mut Task, args: Args) -> SysResult {
    /// More than any option that is served.
    const MAX_VALUE: usize = 64;
    let open = task.file(args.int(0))?;
    let socket = match known(&open)? {
        Known::Own(socket) => socket,
        Known::Host(_) => return Err(Errno::ENOPROTOOPT),
    };
    let len = usize::try_from(args.int(4)).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0u8; len.min(MAX_VALUE)];
    task.memory().read(args.word(3), &mut value)?;
    socket.set_option(args.int(1), args.int(2), &value)?;
    DONE
}
