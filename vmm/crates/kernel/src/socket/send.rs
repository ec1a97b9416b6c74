//! Sending, and where it goes.

use std::net::SocketAddr;
use std::sync::Arc;

use vmm_abi::{Errno, Iovec};
use vmm_memory::AddressSpace;

use super::address::{Address, reachable};
use super::endpoint::{Endpoint, NO_MORE_IN, NO_MORE_OUT, Packet, Rights};
use super::names::Found;
use super::{Family, Kind, Socket};
use crate::syscalls::total;

/// Longest messages: of a Unix socket (its buffer less what Linux needs for itself), of UDP.
const UNIX_MESSAGE: u64 = 212_992 - 32;
const UDP4_MESSAGE: u64 = 65_507;
const UDP6_MESSAGE: u64 = 65_527;

/// Whom a message is for.
pub enum Target {
    /// Whom the socket is connected to.
    Peer,
    Inet(SocketAddr),
    Unix(Found),
}

impl Socket {
    /// Sends what there is room for, or a whole message. The rights are taken when something was sent.
    ///
    /// # Errors
    /// EAGAIN when there is no room now, EPIPE, ENOTCONN, EMSGSIZE, EFAULT and those of send(2).
    pub fn send(
        &self,
        memory: &AddressSpace,
        from: &[Iovec],
        target: &Target,
        rights: &mut Rights,
    ) -> Result<u64, Errno> {
        match (self.end.kind, self.end.family) {
            (Kind::Stream, _) => self.send_stream(memory, from, rights),
            (_, Family::Unix) => self.send_unix(memory, from, target, rights),
            _ => self.send_udp(memory, from, target),
        }
    }

    fn send_stream(
        &self,
        memory: &AddressSpace,
        from: &[Iovec],
        rights: &mut Rights,
    ) -> Result<u64, Errno> {
        let Some(peer) = self.stream_peer()? else {
            return self.send_to_closed(total(from));
        };
        let mut state = peer.lock();
        if state.closed {
            drop(state);
            return self.send_to_closed(total(from));
        }
        if total(from) == 0 {
            return Ok(0);
        }
        let room = peer.room(&state)?;
        let bytes = memory.gather(from, room)?;
        let count = bytes.len() as u64;
        peer.append(&mut state, bytes, std::mem::take(rights))?;
        drop(state);
        peer.queue.wake_all();
        Ok(count)
    }

    /// Whom a stream is connected to; `None` when that is closed.
    fn stream_peer(&self) -> Result<Option<Arc<Endpoint>>, Errno> {
        let tcp = self.end.is_tcp();
        let mut state = self.end.lock();
        if tcp && let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.shutdown & NO_MORE_OUT != 0 {
            return Err(Errno::EPIPE);
        }
        if !state.connected {
            return Err(if tcp { Errno::EPIPE } else { Errno::ENOTCONN });
        }
        drop(state);
        Ok(self.end.peer())
    }

    /// Sends bytes of the monitor on a stream.
    pub(super) fn put_bytes(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.end.kind != Kind::Stream {
            return Err(Errno::EINVAL);
        }
        let lost = |len: usize| self.send_to_closed(len as u64).map(|count| count as usize);
        let Some(peer) = self.stream_peer()? else {
            return lost(bytes.len());
        };
        let mut state = peer.lock();
        if state.closed {
            drop(state);
            return lost(bytes.len());
        }
        let room = peer.room(&state)?.min(bytes.len());
        let part = bytes.get(..room).unwrap_or_default().to_vec();
        peer.append(&mut state, part, Rights::default())?;
        drop(state);
        peer.queue.wake_all();
        Ok(room)
    }

    /// The first bytes to a TCP peer that is gone are lost; its answer, a reset, is seen later.
    fn send_to_closed(&self, len: u64) -> Result<u64, Errno> {
        if !self.end.is_tcp() {
            return Err(Errno::EPIPE);
        }
        self.end.reset(Errno::EPIPE);
        Ok(len)
    }

    fn message(&self, memory: &AddressSpace, from: &[Iovec]) -> Result<Vec<u8>, Errno> {
        let limit = match self.end.family {
            Family::Unix => UNIX_MESSAGE,
            Family::Inet => UDP4_MESSAGE,
            Family::Inet6 => UDP6_MESSAGE,
        };
        let len = total(from);
        if len > limit {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = memory.gather(from, usize::try_from(len).map_err(|_| Errno::EMSGSIZE)?)?;
        if bytes.len() as u64 == len {
            Ok(bytes)
        } else {
            Err(Errno::EFAULT)
        }
    }

    fn send_unix(
        &self,
        memory: &AddressSpace,
        from: &[Iovec],
        target: &Target,
        rights: &mut Rights,
    ) -> Result<u64, Errno> {
        let bytes = self.message(memory, from)?;
        let (name, connected, shutdown) = {
            let state = self.end.lock();
            (state.name.clone(), state.connected, state.shutdown)
        };
        if shutdown & NO_MORE_OUT != 0 {
            return Err(Errno::EPIPE);
        }
        let target = match target {
            Target::Unix(Found(end)) if self.end.kind == Kind::Datagram => Arc::clone(end),
            _ if !connected => return Err(Errno::ENOTCONN),
            _ => self.end.peer().ok_or_else(|| self.peer_is_gone())?,
        };
        if target.kind != self.end.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let mut state = target.lock();
        if state.closed {
            drop(state);
            return Err(self.peer_is_gone());
        }
        let own = Arc::as_ptr(&self.end);
        if let Some(other) = &state.peer
            && !std::ptr::eq(other.as_ptr(), own)
        {
            return Err(Errno::EPERM);
        }
        if state.shutdown & NO_MORE_IN != 0 {
            return Err(Errno::EPIPE);
        }
        let count = bytes.len() as u64;
        let passed = std::mem::take(rights);
        if let Err((errno, packet)) = target.enqueue(&mut state, Packet::new(bytes, name, passed)) {
            drop(state);
            *rights = packet.rights;
            return Err(errno);
        }
        drop(state);
        target.queue.wake_all();
        Ok(count)
    }

    /// A datagram socket whose peer has gone is told once and is unconnected then.
    fn peer_is_gone(&self) -> Errno {
        if self.end.kind != Kind::Datagram {
            return Errno::EPIPE;
        }
        let mut state = self.end.lock();
        if state.connected && state.peer.as_ref().is_none_or(|p| p.strong_count() == 0) {
            (state.peer, state.peer_name, state.connected) = (None, None, false);
        }
        Errno::ECONNREFUSED
    }

    fn send_udp(
        &self,
        memory: &AddressSpace,
        from: &[Iovec],
        target: &Target,
    ) -> Result<u64, Errno> {
        let mut state = self.end.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.shutdown & NO_MORE_OUT != 0 {
            return Err(Errno::EPIPE);
        }
        let peer = state.peer_name.clone();
        drop(state);
        let to = match (target, peer) {
            (Target::Inet(address), _) => *address,
            (_, Some(Address::Inet(address))) => address,
            _ => return Err(Errno::EDESTADDRREQ),
        };
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let to = SocketAddr::new(reachable(to.ip())?, to.port());
        if self.end.family == Family::Inet6 && to.is_ipv4() && self.options.lock().only_ipv6() {
            return Err(Errno::ENETUNREACH);
        }
        let bytes = self.message(memory, from)?;
        let count = bytes.len() as u64;
        self.bind_automatically(None)?;
        let source = match self.end.name() {
            Address::Inet(own) if own.ip().is_unspecified() => SocketAddr::new(to.ip(), own.port()),
            Address::Inet(own) => own,
            _ => return Err(Errno::EINVAL),
        };
        let source = Address::Inet(source);
        let found = self.end.network.at(Kind::Datagram, to);
        match found.filter(|end| hears(end, &source)) {
            Some(end) => {
                let mut state = end.lock();
                if !state.closed {
                    // What finds no room is lost, as UDP may.
                    let packet = Packet::new(bytes, Some(source), Rights::default());
                    let _ = end.enqueue(&mut state, packet);
                }
                drop(state);
                end.queue.wake_all();
            }
            None if matches!(target, Target::Peer) => {
                // The answer "port unreachable" comes back at once.
                self.end.lock().error = Some(Errno::ECONNREFUSED);
                self.end.queue.wake_all();
            }
            None => {}
        }
        Ok(count)
    }
}

/// A connected datagram socket hears its peer only.
fn hears(end: &Endpoint, source: &Address) -> bool {
    let state = end.lock();
    state.peer_name.as_ref().is_none_or(|peer| peer == source)
}
