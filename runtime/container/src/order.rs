//! What travels between the library and `cloister-init`: one JSON message per packet of a SOCK_SEQPACKET pair, file descriptors beside it.
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A packet is at most this long; an environment of 32 KiB, escaped, and a command line fit well.
pub const MAX_PACKET: usize = 192 * 1024;
/// fd3, stdout, stderr, the root's tree, the bundle's tree, the monitor's program, /dev/kvm, the counters, two namespaces, what belongs to a
/// snapshot.
pub const MAX_FDS: usize = 10 + MAX_SNAPSHOT_FDS;
/// The file of a snapshot, and the socket by which one is asked for.
pub const MAX_SNAPSHOT_FDS: usize = 2;

/// Makes a sandbox. Descriptors: the runner's fd 3, its stdout, its stderr, a detached mount of the root, one of the bundle when
/// `has_bundle`, and with `has_monitor` the monitor's program, /dev/kvm, its counters, its network
/// and IPC namespaces and the snapshot's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Becomes the host name.
    pub id: String,
    /// Shown by ps.
    pub label: String,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Host uid and gid that uid and gid 1000 inside stand for.
    pub host_id: u32,
    pub tmp_bytes: u64,
    /// An empty folder the root is mounted on before it becomes `/`.
    pub mount_point: String,
    /// An empty read-only file, to hide others behind.
    pub empty_file: String,
    pub has_bundle: bool,
    /// The runner runs in a micro-VM: the monitor's program, which is not in the image, is executed instead of `argv[0]`.
    pub has_monitor: bool,
    /// How many of the snapshot's descriptors come with it.
    pub snapshot_fds: usize,
}

/// What comes back, in this order: `Cloned`, then `Started` or `Failed`, and after `Started` one `Ended` (unless init is killed). Of a micro-VM
/// `Executing` comes instead of `Started`: the socket's end then says that the monitor has been executed in init's place, `Failed` that it could not be.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The sandbox's pid 1 exists.
    Cloned {
        pid: i32,
        phases: Vec<(String, f64)>,
    },
    /// The runner's program has been executed; every limit and wall stands.
    Started { phases: Vec<(String, f64)> },
    /// Every limit and wall stands; the monitor's program is about to be executed.
    Executing { phases: Vec<(String, f64)> },
    /// `isolation` where the kernel refused a part of the walls.
    Failed {
        step: String,
        message: String,
        isolation: bool,
    },
    /// The runner has ended.
    Ended(Ended),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

/// Sends one message with descriptors.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn packet(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
    flags: RecvFlags,
) -> io::Result<RecvMsg> {
    loop {
        match recvmsg(socket, &mut [IoSliceMut::new(bytes)], control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Receives one message with its descriptors; None when the other side has gone.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    wait: bool,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, !wait);
    // A look at how long it is (recv(2), MSG_TRUNC): room for the longest would be two hundred times what most need.
    let look = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
    let length = packet(socket, &mut [], &mut RecvAncillaryBuffer::default(), look)?.bytes;
    let mut bytes = vec![0_u8; length.min(MAX_PACKET)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = packet(socket, &mut bytes, &mut control, flags)?;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if got.bytes == 0 {
        return Ok(None);
    }
    if got
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::other("a message was longer than it may be"));
    }
    let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok(Some((message, fds)))
}
