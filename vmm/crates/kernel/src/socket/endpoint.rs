//! The side of a socket that others see: what has arrived for it, who waits to be accepted, its state.
//! Others hold it weakly; the open file alone keeps it, so that closing is dropping.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use vmm_abi::*;

use super::address::{Address, UnixName};
use super::{Family, Kind, Network, Socket};
use crate::file::OpenFile;
use crate::wait::WaitQueue;

/// Bits of [`State::shutdown`], as Linux has them in `sk_shutdown`.
pub const NO_MORE_IN: u8 = 1;
pub const NO_MORE_OUT: u8 = 2;
pub const NO_MORE: u8 = NO_MORE_IN | NO_MORE_OUT;

/// Bytes that may wait at one endpoint; the default of net.core.wmem_default for Unix sockets.
const UNIX_BYTES: usize = 212_992;
const INET_BYTES: usize = 512 << 10;
/// Datagrams that may wait at a Unix endpoint (net.unix.max_dgram_qlen) and at others.
const UNIX_DATAGRAMS: usize = 10;
const INET_DATAGRAMS: usize = 4096;
/// What a message costs beside its bytes.
const MESSAGE_COST: usize = 256;
/// Bytes that are added to what waits already instead of becoming a packet of their own.
const COALESCE: usize = 64 << 10;

/// Bytes that came together, and what came with them.
pub struct Packet {
    bytes: Vec<u8>,
    /// Bytes of a stream that have been read already.
    taken: usize,
    pub from: Option<Address>,
    pub rights: Rights,
}

impl Packet {
    /// A packet of bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>, from: Option<Address>, rights: Rights) -> Self {
        Self {
            bytes,
            taken: 0,
            from,
            rights,
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }
}

/// Open files on their way through a Unix socket.
#[derive(Default)]
pub struct Rights {
    files: Vec<Arc<OpenFile>>,
    network: Option<Arc<Network>>,
}

impl Rights {
    /// Files that count as on their way until this is dropped.
    ///
    /// # Errors
    /// ETOOMANYREFS when too many are.
    pub fn new(files: Vec<Arc<OpenFile>>, network: &Arc<Network>) -> Result<Self, Errno> {
        network.charge_rights(files.len())?;
        let network = Some(Arc::clone(network));
        Ok(Self { files, network })
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[Arc<OpenFile>] {
        &self.files
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if let Some(network) = &self.network {
            network.release_rights(self.files.len());
        }
    }
}

/// Connections that wait for accept(2).
#[derive(Default)]
pub struct Backlog {
    pub waiting: VecDeque<Arc<Socket>>,
    pub limit: usize,
}

/// What changes about an endpoint.
pub struct State {
    pub packets: VecDeque<Packet>,
    /// Bytes in `packets`, all charged to the network.
    pub bytes: usize,
    pub shutdown: u8,
    pub closed: bool,
    /// Told by the next call, and by SO_ERROR.
    pub error: Option<Errno>,
    pub backlog: Option<Backlog>,
    pub name: Option<Address>,
    pub peer: Option<Weak<Endpoint>>,
    pub peer_name: Option<Address>,
    /// A stream that has been connected once stays so, even when the peer is gone.
    pub connected: bool,
    /// Queues of sockets that are connected to this one and may wait for room.
    senders: Vec<Weak<WaitQueue>>,
}

/// See the module.
pub struct Endpoint {
    pub family: Family,
    pub kind: Kind,
    pub queue: Arc<WaitQueue>,
    pub network: Arc<Network>,
    state: Mutex<State>,
}

impl Endpoint {
    /// An endpoint that is neither bound nor connected.
    #[must_use]
    pub fn new(family: Family, kind: Kind, network: &Arc<Network>) -> Arc<Self> {
        let state = State {
            packets: VecDeque::new(),
            bytes: 0,
            shutdown: 0,
            closed: false,
            error: None,
            backlog: None,
            name: None,
            peer: None,
            peer_name: None,
            connected: false,
            senders: Vec::new(),
        };
        Arc::new(Self {
            family,
            kind,
            queue: Arc::default(),
            network: Arc::clone(network),
            state: Mutex::new(state),
        })
    }

    /// The state. Nobody holds two of these at once, and none while a file may be dropped.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether connections can come.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.lock().backlog.is_some()
    }

    /// Whether it is a TCP endpoint.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.kind == Kind::Stream && self.family != Family::Unix
    }

    /// Where it is bound, or an address of its family that says nothing.
    #[must_use]
    pub fn name(&self) -> Address {
        self.lock().name.clone().unwrap_or_else(|| self.unnamed())
    }

    /// The address of an endpoint that has none.
    #[must_use]
    pub fn unnamed(&self) -> Address {
        match self.family {
            Family::Unix => Address::Unix(UnixName::Unnamed),
            Family::Inet => Address::Inet(([0, 0, 0, 0], 0).into()),
            Family::Inet6 => Address::Inet(([0u16; 8], 0).into()),
        }
    }

    /// Puts what waited in a former endpoint into this one.
    ///
    /// # Errors
    /// ENOBUFS.
    pub fn put_back(&self, packets: Vec<Packet>) -> Result<(), Errno> {
        for packet in packets {
            let len = packet.bytes.len();
            let cost = match self.kind {
                Kind::Stream => 0,
                _ => MESSAGE_COST,
            };
            self.network.charge_bytes(len.saturating_add(cost))?;
            let mut state = self.lock();
            state.bytes = state.bytes.saturating_add(len);
            state.packets.push_back(packet);
        }
        Ok(())
    }

    /// Bytes that may wait here.
    #[must_use]
    pub fn capacity(&self) -> usize {
        if self.family == Family::Unix {
            UNIX_BYTES
        } else {
            INET_BYTES
        }
    }

    /// Whether a sender may be told that there is room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let state = self.lock();
        let packets = self.kind == Kind::Stream || state.packets.len() < self.packet_limit();
        packets && state.bytes < self.capacity() / 2
    }

    fn packet_limit(&self) -> usize {
        match (self.family, self.kind) {
            (Family::Unix, Kind::Datagram) => UNIX_DATAGRAMS,
            _ => INET_DATAGRAMS,
        }
    }

    /// Says that a queue wants to hear when room comes.
    pub fn add_sender(&self, queue: &Arc<WaitQueue>) {
        let mut state = self.lock();
        state.senders.retain(|known| known.strong_count() > 0);
        state.senders.push(Arc::downgrade(queue));
    }

    /// Bytes of a stream that have room; [`Endpoint::append`] takes as many.
    ///
    /// # Errors
    /// EAGAIN when there is none.
    pub fn room(&self, state: &State) -> Result<usize, Errno> {
        match self.capacity().saturating_sub(state.bytes) {
            0 => Err(Errno::EAGAIN),
            room => Ok(room),
        }
    }

    /// Adds bytes to a stream. The caller wakes the queue once the lock is gone.
    ///
    /// # Errors
    /// ENOBUFS.
    pub fn append(&self, state: &mut State, bytes: Vec<u8>, rights: Rights) -> Result<(), Errno> {
        self.network.charge_bytes(bytes.len())?;
        state.bytes = state.bytes.saturating_add(bytes.len());
        let joined = state.packets.back_mut().filter(|last| {
            let sum = last.bytes.len().saturating_add(bytes.len());
            rights.is_empty() && last.rights.is_empty() && sum <= COALESCE
        });
        match joined {
            Some(last) => last.bytes.extend(bytes),
            None => state.packets.push_back(Packet::new(bytes, None, rights)),
        }
        Ok(())
    }

    /// Adds a message; gives it back when that cannot be.
    ///
    /// # Errors
    /// EAGAIN when there is no room now, ENOBUFS.
    pub fn enqueue(&self, state: &mut State, packet: Packet) -> Result<(), (Errno, Packet)> {
        let len = packet.bytes.len();
        // A message that fits at all fits where nothing else waits.
        let full = state.bytes.saturating_add(len) > self.capacity() && state.bytes > 0;
        if full || state.packets.len() >= self.packet_limit() {
            return Err((Errno::EAGAIN, packet));
        }
        if let Err(errno) = self.network.charge_bytes(len.saturating_add(MESSAGE_COST)) {
            return Err((errno, packet));
        }
        state.bytes = state.bytes.saturating_add(len);
        state.packets.push_back(packet);
        Ok(())
    }

    /// Takes `count` bytes off the first packets of a stream; answers what is to be dropped once the
    /// lock is gone.
    #[must_use]
    pub fn consume(&self, state: &mut State, count: usize) -> Vec<Packet> {
        let mut left = count;
        let mut done = Vec::new();
        while let Some(first) = state.packets.front_mut() {
            let part = first.rest().len().min(left);
            first.taken = first.taken.saturating_add(part);
            left = left.saturating_sub(part);
            if !first.rest().is_empty() {
                break;
            }
            done.extend(state.packets.pop_front());
            if left == 0 {
                break;
            }
        }
        self.release(state, count);
        done
    }

    /// Takes the first message off.
    pub fn take_message(&self, state: &mut State) -> Option<Packet> {
        let packet = state.packets.pop_front()?;
        self.release(state, packet.bytes.len());
        self.network.release_bytes(MESSAGE_COST);
        Some(packet)
    }

    fn release(&self, state: &mut State, bytes: usize) {
        state.bytes = state.bytes.saturating_sub(bytes);
        self.network.release_bytes(bytes);
    }

    /// What the packets that are here have been charged with.
    #[must_use]
    pub fn charged(&self, state: &State) -> usize {
        let messages = match self.kind {
            Kind::Stream => 0,
            _ => state.packets.len(),
        };
        state
            .bytes
            .saturating_add(messages.saturating_mul(MESSAGE_COST))
    }

    /// Tells everyone who may wait for room here.
    pub fn room_came(&self) {
        let state = self.lock();
        let peer = state.peer.as_ref().and_then(Weak::upgrade);
        let senders: Vec<_> = state.senders.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for queue in senders {
            queue.wake_all();
        }
        if let Some(peer) = peer {
            peer.queue.wake_all();
        }
        self.queue.wake_all();
    }

    /// The peer, when it is still open.
    #[must_use]
    pub fn peer(&self) -> Option<Arc<Endpoint>> {
        self.lock().peer.as_ref().and_then(Weak::upgrade)
    }

    /// Ends both directions with an error, as a reset does.
    pub fn reset(&self, error: Errno) {
        let mut state = self.lock();
        state.error = Some(error);
        state.shutdown = NO_MORE;
        drop(state);
        self.queue.wake_all();
    }

    /// Says that the peer sends no more, and for Unix sockets what else it told.
    pub fn peer_shut(&self, bits: u8) {
        self.lock().shutdown |= bits;
        self.queue.wake_all();
    }

    /// Events in EPOLL* bits that hold now.
    #[must_use]
    pub fn readiness(&self) -> u32 {
        let state = self.lock();
        if let Some(backlog) = &state.backlog {
            let came = if backlog.waiting.is_empty() {
                0
            } else {
                EPOLLIN
            };
            let unix = if self.family == Family::Unix {
                EPOLLOUT
            } else {
                0
            };
            return came | unix;
        }
        let (shutdown, connected) = (state.shutdown, state.connected);
        let mut ready = 0;
        if state.error.is_some() {
            ready |= EPOLLERR;
        }
        if !state.packets.is_empty() {
            ready |= EPOLLIN;
        }
        let peer = state.peer.as_ref().and_then(Weak::upgrade);
        drop(state);
        if shutdown & NO_MORE_IN != 0 {
            ready |= EPOLLIN | EPOLLRDHUP;
        }
        if shutdown == NO_MORE || (self.kind != Kind::Datagram && !connected) {
            ready |= EPOLLHUP;
        }
        if shutdown & NO_MORE_OUT != 0 || peer.is_none_or(|peer| peer.has_room()) {
            ready |= EPOLLOUT;
        }
        ready
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let charged = self.charged(&self.state.lock());
        self.network.release_bytes(charged);
    }
}
