//! Sockets inside the guest: Unix sockets, and TCP and UDP over its own loopback. No host socket is behind them.

mod address;
mod endpoint;
mod names;
mod network;
mod options;
mod receive;
mod send;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use vmm_abi::*;
use vmm_memory::AddressSpace;

use crate::file::File;
use crate::syscalls::total;
use crate::wait::WaitQueue;
use endpoint::{Endpoint, NO_MORE, NO_MORE_IN, NO_MORE_OUT};
use options::Options;

pub use address::{Address, MAX_BYTES as MAX_ADDRESS_BYTES, UnixName};
pub use endpoint::Rights;
pub use names::Found;
pub use network::Network;
pub use receive::{Received, Want};
pub use send::Target;
pub(crate) use state::RestoredSockets;

/// Address families that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Unix,
    Inet,
    Inet6,
}

impl Family {
    /// The family of an AF_* number.
    ///
    /// # Errors
    /// EAFNOSUPPORT.
    pub fn of(number: i32) -> Result<Self, Errno> {
        match number {
            libc::AF_UNIX => Ok(Self::Unix),
            libc::AF_INET => Ok(Self::Inet),
            libc::AF_INET6 => Ok(Self::Inet6),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// AF_*
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Unix => libc::AF_UNIX,
            Self::Inet => libc::AF_INET,
            Self::Inet6 => libc::AF_INET6,
        }
    }
}

/// Socket types that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Datagram,
    SeqPacket,
}

impl Kind {
    /// The type of a SOCK_* number and a protocol in a family.
    ///
    /// # Errors
    /// EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM for raw sockets.
    pub fn of(family: Family, kind: i32, protocol: i32) -> Result<Self, Errno> {
        let found = match kind {
            libc::SOCK_STREAM => Self::Stream,
            libc::SOCK_DGRAM => Self::Datagram,
            libc::SOCK_SEQPACKET if family == Family::Unix => Self::SeqPacket,
            // Needs CAP_NET_RAW, which nobody has here.
            libc::SOCK_RAW if family != Family::Unix => return Err(Errno::EPERM),
            // SOCK_RAW, SOCK_RDM, SOCK_DCCP, SOCK_PACKET
            3..=6 | 10 => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EINVAL),
        };
        let allowed = match (family, found) {
            (Family::Unix, _) => [0, libc::AF_UNIX],
            (_, Self::Stream) => [0, libc::IPPROTO_TCP],
            _ => [0, libc::IPPROTO_UDP],
        };
        if allowed.contains(&protocol) {
            Ok(found)
        } else {
            Err(Errno::EPROTONOSUPPORT)
        }
    }

    /// SOCK_*
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Stream => libc::SOCK_STREAM,
            Self::Datagram => libc::SOCK_DGRAM,
            Self::SeqPacket => libc::SOCK_SEQPACKET,
        }
    }
}

/// An open socket. Dropping it closes it.
pub struct Socket {
    end: Arc<Endpoint>,
    options: Mutex<Options>,
    /// SO_LINGER with a time of 0: closing resets.
    resets: AtomicBool,
    ino: u64,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({:?} {:?})", self.end.family, self.end.kind)
    }
}

impl Socket {
    /// A socket that is neither bound nor connected.
    #[must_use]
    pub fn new(family: Family, kind: Kind, network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self {
            end: Endpoint::new(family, kind, network),
            options: Mutex::default(),
            resets: AtomicBool::new(false),
            ino: network.new_ino(),
        })
    }

    /// Two sockets that are connected to each other (socketpair(2)).
    #[must_use]
    pub fn pair(kind: Kind, network: &Arc<Network>) -> (Arc<Self>, Arc<Self>) {
        let one = Self::new(Family::Unix, kind, network);
        let other = Self::new(Family::Unix, kind, network);
        let unnamed = one.end.unnamed();
        join(&one.end, &other.end, &unnamed);
        join(&other.end, &one.end, &unnamed);
        (one, other)
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.end.family
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.end.kind
    }

    /// The number that fstat(2) shows.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Whether it waits for connections.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.end.listens()
    }

    /// shutdown(2)
    ///
    /// # Errors
    /// EINVAL for a direction that is none, ENOTCONN.
    pub fn shutdown(&self, how: i32) -> Result<(), Errno> {
        let bits = match how {
            libc::SHUT_RD => NO_MORE_IN,
            libc::SHUT_WR => NO_MORE_OUT,
            libc::SHUT_RDWR => NO_MORE,
            _ => return Err(Errno::EINVAL),
        };
        let unix = self.end.family == Family::Unix;
        let mut state = self.end.lock();
        if state.backlog.is_some() && bits & NO_MORE_IN != 0 && !unix {
            // A listener stops listening (inet_shutdown of Linux).
            let backlog = state.backlog.take();
            drop(state);
            drop(backlog);
            self.end.queue.wake_all();
            return Ok(());
        }
        if !unix && !state.connected && state.peer_name.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.shutdown |= bits;
        let peer = state.peer.as_ref().and_then(std::sync::Weak::upgrade);
        drop(state);
        if let Some(peer) = peer
            && self.end.kind != Kind::Datagram
        {
            let mut told = 0;
            if bits & NO_MORE_OUT != 0 {
                told |= NO_MORE_IN;
            }
            // TCP does not tell its peer that it reads no more.
            if bits & NO_MORE_IN != 0 && unix {
                told |= NO_MORE_OUT;
            }
            peer.peer_shut(told);
        }
        self.end.queue.wake_all();
        Ok(())
    }

    fn close(&self) {
        let end = &self.end;
        let mut state = end.lock();
        state.closed = true;
        let peer = state.peer.take().and_then(|peer| peer.upgrade());
        let unread = !state.packets.is_empty();
        let charged = end.charged(&state);
        let packets = std::mem::take(&mut state.packets);
        state.bytes = 0;
        let backlog = state.backlog.take();
        let name = state.name.take();
        drop(state);
        end.network.release_bytes(charged);
        drop((packets, backlog));
        if let Some(Address::Inet(address)) = name {
            end.network.leave_port(end, address.port());
        }
        if let Some(peer) = peer
            && end.kind != Kind::Datagram
        {
            if unread || self.resets.load(Ordering::Relaxed) {
                peer.reset(Errno::ECONNRESET);
            } else if end.family == Family::Unix {
                peer.peer_shut(NO_MORE);
            } else {
                peer.peer_shut(NO_MORE_IN);
            }
        }
        end.room_came();
    }
}

/// Makes `end` send to `peer`, which has that name.
fn join(end: &Arc<Endpoint>, peer: &Arc<Endpoint>, name: &Address) {
    let mut state = end.lock();
    state.peer = Some(Arc::downgrade(peer));
    state.peer_name = Some(name.clone());
    state.connected = true;
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

impl File for Socket {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 8,
            ino: self.ino,
            nlink: 1,
            mode: S_IFSOCK | 0o777,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        // Takes no message, and waits for none (sock_read_iter of Linux).
        if total(to) == 0 {
            return Ok(0);
        }
        let received = self.receive(memory, to, Want::default())?;
        Ok(received.count as u64)
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        self.send(memory, from, &Target::Peer, &mut Rights::default())
    }

    fn put(&self, bytes: &[u8], _offset: u64) -> Result<usize, Errno> {
        self.put_bytes(bytes)
    }

    fn readiness(&self) -> u32 {
        self.end.readiness()
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.end.queue)
    }

    fn ioctl(&self, memory: &AddressSpace, request: u32, argument: u64) -> Result<u64, Errno> {
        const FIONREAD: u32 = 0x541b;
        const TIOCOUTQ: u32 = 0x5411;
        let count = match request {
            FIONREAD if self.end.listens() => return Err(Errno::EINVAL),
            FIONREAD => {
                let state = self.end.lock();
                match self.end.kind {
                    Kind::Stream => state.bytes,
                    _ => state.packets.front().map_or(0, |first| first.rest().len()),
                }
            }
            TIOCOUTQ => self.end.peer().map_or(0, |peer| peer.lock().bytes),
            _ => return Err(Errno::ENOTTY),
        };
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        memory.write_value(argument, &count).map(|()| 0)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
