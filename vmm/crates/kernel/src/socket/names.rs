//! Binding, listening, connecting, accepting.

use std::net::SocketAddr;
use std::sync::Arc;

use vmm_abi::Errno;

use super::address::{Address, UnixName, reachable};
use super::endpoint::{Backlog, Endpoint, NO_MORE};
use super::network::Claim;
use super::{Family, Kind, Socket, join};
use crate::wait::WaitQueue;

/// Most connections that wait for accept(2) (net.core.somaxconn).
const MAX_BACKLOG: usize = 4096;

impl Socket {
    /// Binds to an address that is not a path.
    ///
    /// # Errors
    /// EINVAL when it is bound already, EADDRINUSE, EADDRNOTAVAIL.
    pub fn bind(&self, address: &Address) -> Result<(), Errno> {
        if self.end.lock().name.is_some() {
            return Err(Errno::EINVAL);
        }
        let name = match address {
            Address::Inet(address) => {
                let options = self.options.lock();
                let claim = Claim {
                    address: *address,
                    both_families: self.end.family == Family::Inet6 && !options.only_ipv6(),
                    reuse_address: options.reuses_address(),
                    reuse_port: options.reuses_port(),
                };
                drop(options);
                Address::Inet(self.end.network.claim(&self.end, claim)?)
            }
            Address::Unix(UnixName::Abstract(name)) => {
                let name = Some(name.clone());
                let name = self.end.network.claim_hidden(&self.end, name)?;
                Address::Unix(UnixName::Abstract(name))
            }
            Address::Unix(UnixName::Unnamed) => {
                let name = self.end.network.claim_hidden(&self.end, None)?;
                Address::Unix(UnixName::Abstract(name))
            }
            Address::Unix(UnixName::Path(_)) => return Err(Errno::EINVAL),
            Address::Unspecified => return Err(Errno::EAFNOSUPPORT),
        };
        self.end.lock().name = Some(name);
        Ok(())
    }

    /// Whether bind(2) has been done.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.end.lock().name.is_some()
    }

    /// Says that a new socket file, by device and inode, stands for this socket.
    pub fn bind_node(&self, path: Vec<u8>, node: (u64, u64)) {
        self.end.network.claim_node(&self.end, node);
        self.end.lock().name = Some(Address::Unix(UnixName::Path(path)));
    }

    /// Where it is bound.
    #[must_use]
    pub fn name(&self) -> Address {
        self.end.name()
    }

    /// What it is connected to.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn peer_name(&self) -> Result<Address, Errno> {
        let state = self.end.lock();
        // TCP forgets its peer when both directions are over by a reset.
        let reset = self.end.is_tcp() && state.shutdown == NO_MORE && state.peer.is_none();
        match &state.peer_name {
            Some(name) if !reset => Ok(name.clone()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// listen(2)
    ///
    /// # Errors
    /// EINVAL for a connected or (Unix) unbound socket, EOPNOTSUPP for datagrams, EADDRINUSE.
    pub fn listen(&self, backlog: i32) -> Result<(), Errno> {
        if self.end.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let (connected, bound) = {
            let state = self.end.lock();
            (state.connected, state.name.is_some())
        };
        if connected || (!bound && self.end.family == Family::Unix) {
            return Err(Errno::EINVAL);
        }
        if !bound {
            self.bind_automatically(None)?;
        }
        // The TCP of Linux lets a client wait in the network when the queue is full. Here there is no
        // such place: the queue is as long as it may be, whatever was asked for.
        let limit = match usize::try_from(backlog) {
            Ok(limit) if self.end.family == Family::Unix => limit.min(MAX_BACKLOG),
            _ => MAX_BACKLOG,
        };
        let mut state = self.end.lock();
        state.backlog.get_or_insert_default().limit = limit;
        Ok(())
    }

    /// Takes the first connection that waits.
    ///
    /// # Errors
    /// EAGAIN when none does, EINVAL when it does not listen, EOPNOTSUPP for datagrams.
    pub fn accept(&self) -> Result<Arc<Socket>, Errno> {
        if self.end.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.end.lock();
        let backlog = state.backlog.as_mut().ok_or(Errno::EINVAL)?;
        let first = backlog.waiting.pop_front().ok_or(Errno::EAGAIN)?;
        drop(state);
        self.end.room_came();
        Ok(first)
    }

    /// Binds an Internet socket to a free port, unless it is bound.
    pub(super) fn bind_automatically(&self, towards: Option<SocketAddr>) -> Result<(), Errno> {
        if self.end.lock().name.is_some() {
            return Ok(());
        }
        let ip = match (towards, self.end.unnamed()) {
            (Some(address), _) => address.ip(),
            (None, Address::Inet(any)) => any.ip(),
            (None, _) => return Ok(()),
        };
        let claim = Claim::automatic(self.end.family, ip);
        let address = self.end.network.claim(&self.end, claim)?;
        self.end.lock().name = Some(Address::Inet(address));
        Ok(())
    }

    /// Whom a Unix address that is not a path names.
    ///
    /// # Errors
    /// ECONNREFUSED when nobody has the name, EINVAL for no name.
    pub fn hidden_peer(&self, name: &UnixName) -> Result<Found, Errno> {
        match name {
            UnixName::Abstract(name) => {
                let end = self.end.network.hidden(name);
                end.map(Found).ok_or(Errno::ECONNREFUSED)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whom a socket file stands for.
    ///
    /// # Errors
    /// ECONNREFUSED when its socket is closed.
    pub fn node_peer(&self, node: (u64, u64)) -> Result<Found, Errno> {
        let end = self.end.network.node(node);
        end.map(Found).ok_or(Errno::ECONNREFUSED)
    }

    /// Connects to an Internet address.
    ///
    /// # Errors
    /// ECONNREFUSED, ENETUNREACH, EISCONN, EINVAL for a listener.
    pub fn connect_inet(&self, address: SocketAddr) -> Result<(), Errno> {
        let ip = reachable(address.ip())?;
        if self.end.family == Family::Inet6 && ip.is_ipv4() && self.options.lock().only_ipv6() {
            return Err(Errno::ENETUNREACH);
        }
        let address = SocketAddr::new(ip, address.port());
        let name = Address::Inet(address);
        if self.end.kind == Kind::Datagram {
            self.bind_automatically(Some(address))?;
            self.specify_own_ip(address);
            let mut state = self.end.lock();
            state.peer_name = Some(name);
            state.connected = true;
            return Ok(());
        }
        self.check_unconnected()?;
        let found = self.end.network.at(Kind::Stream, address);
        let listener = found.ok_or(Errno::ECONNREFUSED)?;
        self.bind_automatically(Some(address))?;
        self.specify_own_ip(address);
        self.connect_stream(&listener, &name)
    }

    /// A socket bound to an unspecified address gets the one it talks from.
    fn specify_own_ip(&self, towards: SocketAddr) {
        let mut state = self.end.lock();
        if let Some(Address::Inet(own)) = &mut state.name
            && own.ip().is_unspecified()
        {
            own.set_ip(towards.ip());
        }
    }

    fn check_unconnected(&self) -> Result<(), Errno> {
        let state = self.end.lock();
        if state.backlog.is_some() {
            return Err(if self.end.family == Family::Unix {
                Errno::EINVAL
            } else {
                Errno::EISCONN
            });
        }
        if state.connected {
            return Err(Errno::EISCONN);
        }
        Ok(())
    }

    /// Connects to another Unix socket.
    ///
    /// # Errors
    /// EPROTOTYPE for one of another type, ECONNREFUSED, EISCONN, EAGAIN while its queue is full.
    pub fn connect_unix(&self, found: &Found) -> Result<(), Errno> {
        let Found(target) = found;
        let name = target.name();
        if target.kind != self.end.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.end.kind == Kind::Datagram {
            let other = target.lock().peer.clone();
            let own = |peer: std::sync::Weak<Endpoint>| {
                std::ptr::eq(peer.as_ptr(), Arc::as_ptr(&self.end))
            };
            if !other.is_none_or(own) {
                return Err(Errno::EPERM);
            }
            target.add_sender(&self.end.queue);
            join(&self.end, target, &name);
            return Ok(());
        }
        self.check_unconnected()?;
        self.connect_stream(target, &name)
    }

    fn connect_stream(&self, listener: &Arc<Endpoint>, name: &Address) -> Result<(), Errno> {
        let server = Socket::new(listener.family, listener.kind, &listener.network);
        server.options.lock().inherit(&self.options.lock());
        join(&server.end, &self.end, &self.end.name());
        server.end.lock().name = Some(name.clone());
        // Before it can be accepted, so that it never is seen without its peer.
        join(&self.end, &server.end, name);
        let mut state = listener.lock();
        let full = |backlog: &Backlog| backlog.waiting.len() > backlog.limit;
        let refused = match &mut state.backlog {
            None => Some(Errno::ECONNREFUSED),
            Some(backlog) if full(backlog) => Some(Errno::EAGAIN),
            Some(backlog) => {
                backlog.waiting.push_back(Arc::clone(&server));
                None
            }
        };
        drop(state);
        if let Some(errno) = refused {
            server.end.lock().peer = None;
            let mut own = self.end.lock();
            (own.peer, own.peer_name, own.connected) = (None, None, false);
            return Err(errno);
        }
        listener.queue.wake_all();
        self.end.queue.wake_all();
        Ok(())
    }

    /// Dissolves the association of a datagram socket.
    ///
    /// # Errors
    /// EINVAL for streams, which cannot be connected anew here.
    pub fn disconnect(&self) -> Result<(), Errno> {
        if self.end.kind != Kind::Datagram {
            return Err(Errno::EINVAL);
        }
        let mut state = self.end.lock();
        (state.peer, state.peer_name, state.connected) = (None, None, false);
        Ok(())
    }
}

/// Somebody with a name.
pub struct Found(pub(super) Arc<Endpoint>);

impl Found {
    /// Where a change is told.
    #[must_use]
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.0.queue
    }
}
