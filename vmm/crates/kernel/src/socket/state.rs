//! Sockets as plain data, and back. Nothing of the guest runs meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use vmm_abi::Errno;
use vmm_snapshot::{PacketState, SocketState};

use super::address::Address;
use super::endpoint::{Backlog, Endpoint, NO_MORE, Packet, Rights};
use super::options::Options;
use super::{Family, Kind, Network, Socket};
use crate::file::OpenFile;

impl Socket {
    /// Tells this socket from others.
    #[must_use]
    pub fn identity(&self) -> usize {
        endpoint_identity(&self.end)
    }

    /// Connections that wait to be accepted.
    #[must_use]
    pub fn waiting(&self) -> Vec<Arc<Socket>> {
        let state = self.end.lock();
        let backlog = state.backlog.iter();
        backlog
            .flat_map(|backlog| &backlog.waiting)
            .cloned()
            .collect()
    }

    /// Open files on their way to this socket.
    #[must_use]
    pub fn in_flight(&self) -> Vec<Arc<OpenFile>> {
        let state = self.end.lock();
        let packets = state.packets.iter();
        packets
            .flat_map(|packet| packet.rights.files())
            .cloned()
            .collect()
    }

    /// As data. `socket` and `file` answer the places of other sockets, by [`Socket::identity`], and of descriptions; `None` where one has none.
    pub fn state(
        &self,
        socket: &dyn Fn(usize) -> Option<u32>,
        file: &dyn Fn(&Arc<OpenFile>) -> Option<u32>,
    ) -> Option<SocketState> {
        // Before the lock: it takes that of every endpoint in turn.
        let claim = self.end.network.claim_state(&self.end);
        let peer = self.end.peer().filter(|peer| !peer.lock().closed);
        let peer = match peer {
            Some(peer) => Some(socket(endpoint_identity(&peer))?),
            None => None,
        };
        let state = self.end.lock();
        let packet = |packet: &Packet| {
            let files = packet.rights.files().iter().map(file);
            Some(PacketState {
                bytes: packet.rest().to_vec(),
                from: packet.from.as_ref().and_then(Address::state),
                files: files.collect::<Option<_>>()?,
            })
        };
        let backlog = match &state.backlog {
            Some(backlog) => {
                let waiting = backlog.waiting.iter();
                let places = waiting.map(|waiting| socket(waiting.identity()));
                Some((backlog.limit as u64, places.collect::<Option<_>>()?))
            }
            None => None,
        };
        Some(SocketState {
            family: self.end.family.number(),
            kind: self.end.kind.number(),
            ino: self.ino,
            options: self.options.lock().state(),
            packets: state.packets.iter().map(packet).collect::<Option<_>>()?,
            shutdown: state.shutdown,
            error: state.error.map(|errno| errno.0),
            backlog,
            name: state.name.as_ref().and_then(Address::state),
            claim,
            peer,
            peer_name: state.peer_name.as_ref().and_then(Address::state),
            connected: state.connected,
        })
    }

    fn restored(state: &SocketState, network: &Arc<Network>) -> Result<Arc<Self>, Errno> {
        let family = Family::of(state.family)?;
        let kind = Kind::of(family, state.kind, 0)?;
        let socket = Arc::new(Self {
            end: Endpoint::new(family, kind, network),
            options: Mutex::new(Options::restored(&state.options)),
            resets: (state.options.linger == (1, 0)).into(),
            ino: state.ino,
        });
        if !socket.end.is_tcp() {
            socket.resets.store(false, Ordering::Relaxed);
        }
        let mut end = socket.end.lock();
        end.shutdown = state.shutdown & NO_MORE;
        end.error = state.error.map(Errno);
        end.name = state.name.as_ref().map(Address::restored);
        end.peer_name = state.peer_name.as_ref().map(Address::restored);
        end.connected = state.connected;
        drop(end);
        if let Some(claim) = &state.claim {
            network.claim_again(&socket.end, claim);
        }
        Ok(socket)
    }
}

fn endpoint_identity(end: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(end) as usize
}

/// The sockets of a process that is brought back, by their place.
pub(crate) struct RestoredSockets<'a> {
    states: &'a [SocketState],
    sockets: Vec<Arc<Socket>>,
}

impl<'a> RestoredSockets<'a> {
    /// All of them, each as if it were alone.
    ///
    /// # Errors
    /// Those of socket(2), for a state that cannot be.
    pub fn new(states: &'a [SocketState], network: &Arc<Network>) -> Result<Self, Errno> {
        let sockets = states.iter().map(|state| Socket::restored(state, network));
        let sockets = sockets.collect::<Result<_, _>>()?;
        Ok(Self { states, sockets })
    }

    /// The socket of that place.
    pub fn get(&self, place: u32) -> Option<&Arc<Socket>> {
        self.sockets.get(place as usize)
    }

    /// Joins them to each other and puts what waited into them; `open` are all descriptions.
    ///
    /// # Errors
    /// EINVAL for a state that cannot be, ENOBUFS, ETOOMANYREFS.
    pub fn join(self, open: &[Arc<OpenFile>], network: &Arc<Network>) -> Result<(), Errno> {
        for (socket, state) in self.sockets.iter().zip(self.states) {
            let mut packets = Vec::new();
            for packet in &state.packets {
                let files = packet
                    .files
                    .iter()
                    .map(|place| open.get(*place as usize).cloned());
                let files: Vec<_> = files.collect::<Option<_>>().ok_or(Errno::EINVAL)?;
                let rights = match files.is_empty() {
                    true => Rights::default(),
                    false => Rights::new(files, network)?,
                };
                let from = packet.from.as_ref().map(Address::restored);
                packets.push(Packet::new(packet.bytes.clone(), from, rights));
            }
            socket.end.put_back(packets)?;
            if let Some(place) = state.peer {
                let peer = self.get(place).ok_or(Errno::EINVAL)?;
                if (peer.end.family, peer.end.kind) != (socket.end.family, socket.end.kind)
                    && socket.end.family == Family::Unix
                {
                    return Err(Errno::EINVAL);
                }
                socket.end.lock().peer = Some(Arc::downgrade(&peer.end));
                if socket.end.kind == Kind::Datagram {
                    peer.end.add_sender(&socket.end.queue);
                }
            }
            if let Some((limit, places)) = &state.backlog {
                let waiting = places.iter().map(|place| self.get(*place).cloned());
                let waiting = waiting.collect::<Option<_>>().ok_or(Errno::EINVAL)?;
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                socket.end.lock().backlog = Some(Backlog { waiting, limit });
            }
        }
        Ok(())
    }
}
