//! What sockets share: ports, abstract names, names in file systems, and bounds.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vmm_abi::Errno;
use vmm_snapshot::ClaimState;

use super::endpoint::Endpoint;
use super::{Family, Kind};

/// Ports that connect(2) and bind(2) to port 0 choose from (ip_local_port_range of Linux).
const FIRST_EPHEMERAL: u16 = 32_768;
const EPHEMERAL_COUNT: usize = 28_232;
/// Bytes that all sockets of a guest hold together; beyond, sending is ENOBUFS.
const MAX_BYTES: usize = 64 << 20;
/// Descriptors that may be on their way through Unix sockets at once.
const MAX_RIGHTS: usize = 4096;

/// A place in the table of ports.
struct Bound {
    end: Weak<Endpoint>,
    ip: IpAddr,
    /// Whether IPv4 addresses are meant too by an unspecified one of IPv6.
    both_families: bool,
    reuse_address: bool,
    reuse_port: bool,
}

impl Bound {
    fn covers(&self, ip: IpAddr) -> bool {
        let of_family = self.ip.is_ipv6() == ip.is_ipv6() || self.both_families;
        self.ip == ip || (self.ip.is_unspecified() && of_family)
    }
}

/// How a bind(2) wants its port.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub address: SocketAddr,
    pub both_families: bool,
    pub reuse_address: bool,
    pub reuse_port: bool,
}

type Ports = BTreeMap<u16, Vec<Bound>>;

/// The guest's own network, which reaches nothing but itself, and the names of its Unix sockets.
#[derive(Default)]
pub struct Network {
    stream_ports: Mutex<Ports>,
    datagram_ports: Mutex<Ports>,
    hidden: Mutex<BTreeMap<Vec<u8>, Weak<Endpoint>>>,
    /// Sockets bound to a path, by device and inode.
    nodes: Mutex<BTreeMap<(u64, u64), Weak<Endpoint>>>,
    next_ino: AtomicU64,
    next_port: AtomicUsize,
    next_name: AtomicUsize,
    held_bytes: AtomicUsize,
    rights: AtomicUsize,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({:?} bytes)", self.held_bytes)
    }
}

fn charge(counter: &AtomicUsize, amount: usize, limit: usize) -> Result<(), Errno> {
    let add = |used: usize| used.checked_add(amount).filter(|sum| *sum <= limit);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        .map(|_| ())
        .map_err(|_| Errno::ENOBUFS)
}

fn release(counter: &AtomicUsize, amount: usize) {
    let take = |used: usize| Some(used.saturating_sub(amount));
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
}

impl Network {
    /// A number for fstat(2) that no other socket has.
    pub fn new_ino(&self) -> u64 {
        self.next_ino
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1 << 20)
    }

    /// Takes room for bytes that a socket will hold.
    ///
    /// # Errors
    /// ENOBUFS when all sockets together hold too much.
    pub fn charge_bytes(&self, amount: usize) -> Result<(), Errno> {
        charge(&self.held_bytes, amount, MAX_BYTES)
    }

    /// Gives it back.
    pub fn release_bytes(&self, amount: usize) {
        release(&self.held_bytes, amount);
    }

    /// Takes room for descriptors on their way.
    ///
    /// # Errors
    /// ETOOMANYREFS when too many are.
    pub fn charge_rights(&self, count: usize) -> Result<(), Errno> {
        charge(&self.rights, count, MAX_RIGHTS).map_err(|_| Errno::ETOOMANYREFS)
    }

    /// Gives it back.
    pub fn release_rights(&self, count: usize) {
        release(&self.rights, count);
    }

    fn ports(&self, kind: Kind) -> &Mutex<Ports> {
        match kind {
            Kind::Datagram => &self.datagram_ports,
            Kind::Stream | Kind::SeqPacket => &self.stream_ports,
        }
    }

    /// Binds an endpoint to an address; port 0 becomes one that is free. Answers the address.
    ///
    /// # Errors
    /// EADDRINUSE, EADDRNOTAVAIL for an address the guest does not have.
    pub fn claim(&self, end: &Arc<Endpoint>, claim: Claim) -> Result<SocketAddr, Errno> {
        let ip = claim.address.ip();
        if !ip.is_unspecified() && !ip.is_loopback() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut ports = self.ports(end.kind).lock();
        let port = match claim.address.port() {
            0 => self.free_port(&ports).ok_or(Errno::EADDRINUSE)?,
            port => port,
        };
        let bound = Bound {
            end: Arc::downgrade(end),
            ip,
            both_families: claim.both_families,
            reuse_address: claim.reuse_address,
            reuse_port: claim.reuse_port,
        };
        let list = ports.entry(port).or_default();
        list.retain(|other| other.end.strong_count() > 0);
        let conflict = |other: &Bound| {
            let listens = other.end.upgrade().is_some_and(|end| end.listens());
            let shared = (other.reuse_address && claim.reuse_address && !listens)
                || (other.reuse_port && claim.reuse_port);
            (other.covers(ip) || bound.covers(other.ip)) && !shared
        };
        if list.iter().any(conflict) {
            return Err(Errno::EADDRINUSE);
        }
        list.push(bound);
        Ok(SocketAddr::new(ip, port))
    }

    fn free_port(&self, ports: &Ports) -> Option<u16> {
        (0..EPHEMERAL_COUNT).find_map(|_| {
            let turn = self.next_port.fetch_add(1, Ordering::Relaxed) % EPHEMERAL_COUNT;
            let port = FIRST_EPHEMERAL.checked_add(u16::try_from(turn).ok()?)?;
            let used = ports
                .get(&port)
                .is_some_and(|list| list.iter().any(|b| b.end.strong_count() > 0));
            (!used).then_some(port)
        })
    }

    /// Whom a packet or connection to that address is for: a listener for streams.
    #[must_use]
    pub fn at(&self, kind: Kind, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let ports = self.ports(kind).lock();
        let list = ports.get(&address.port())?;
        let fits = |bound: &&Bound| bound.covers(address.ip());
        let alive = |bound: &Bound| {
            let end = bound.end.upgrade()?;
            (kind == Kind::Datagram || end.listens()).then_some(end)
        };
        // The exact address before an unspecified one.
        let exact = |bound: &&Bound| bound.ip == address.ip();
        let exact = list.iter().filter(exact).find_map(alive);
        exact.or_else(|| list.iter().filter(fits).find_map(alive))
    }

    /// Gives a port back.
    pub fn leave_port(&self, end: &Endpoint, port: u16) {
        let mut ports = self.ports(end.kind).lock();
        if let Some(list) = ports.get_mut(&port) {
            list.retain(|bound| {
                bound.end.strong_count() > 0 && !std::ptr::eq(bound.end.as_ptr(), end)
            });
            if list.is_empty() {
                ports.remove(&port);
            }
        }
    }

    /// Gives an endpoint an abstract name; `None` chooses one of five digits (unix(7), autobind).
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn claim_hidden(
        &self,
        end: &Arc<Endpoint>,
        name: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Errno> {
        let mut names = self.hidden.lock();
        names.retain(|_, end| end.strong_count() > 0);
        let name = match name {
            Some(name) => name,
            None => {
                let next = || self.next_name.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
                let candidate = |_| format!("{:05x}", next()).into_bytes();
                (0..0x10_0000)
                    .map(candidate)
                    .find(|name| !names.contains_key(name))
                    .ok_or(Errno::ENOSPC)?
            }
        };
        if names.contains_key(&name) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(name.clone(), Arc::downgrade(end));
        Ok(name)
    }

    /// Who has an abstract name.
    #[must_use]
    pub fn hidden(&self, name: &[u8]) -> Option<Arc<Endpoint>> {
        self.hidden.lock().get(name).and_then(Weak::upgrade)
    }

    /// Says that an endpoint is what a socket file stands for.
    pub fn claim_node(&self, end: &Arc<Endpoint>, node: (u64, u64)) {
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, end| end.strong_count() > 0);
        nodes.insert(node, Arc::downgrade(end));
    }

    /// Whom a socket file stands for.
    #[must_use]
    pub fn node(&self, node: (u64, u64)) -> Option<Arc<Endpoint>> {
        self.nodes.lock().get(&node).and_then(Weak::upgrade)
    }
}

/// Claims as data, and back.
impl Network {
    /// What makes an endpoint be found; `None` for one that is not.
    #[must_use]
    pub fn claim_state(&self, end: &Arc<Endpoint>) -> Option<ClaimState> {
        let own = |other: &Weak<Endpoint>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(end));
        let ports = self.ports(end.kind).lock();
        let mut bound = ports.iter().flat_map(|(port, list)| {
            let port = *port;
            list.iter().map(move |bound| (port, bound))
        });
        if let Some((port, bound)) = bound.find(|(_, bound)| own(&bound.end)) {
            return Some(ClaimState::Port {
                address: SocketAddr::new(bound.ip, port),
                both_families: bound.both_families,
                reuse_address: bound.reuse_address,
                reuse_port: bound.reuse_port,
            });
        }
        drop(bound);
        drop(ports);
        let hidden = self.hidden.lock();
        if let Some((name, _)) = hidden.iter().find(|(_, other)| own(other)) {
            return Some(ClaimState::Abstract(name.clone()));
        }
        drop(hidden);
        let nodes = self.nodes.lock();
        let node = nodes.iter().find(|(_, other)| own(other));
        node.map(|((dev, ino), _)| ClaimState::Node(*dev, *ino))
    }

    /// Has an endpoint be found as a former one was.
    pub fn claim_again(&self, end: &Arc<Endpoint>, state: &ClaimState) {
        match state {
            ClaimState::Port {
                address,
                both_families,
                reuse_address,
                reuse_port,
            } => {
                let bound = Bound {
                    end: Arc::downgrade(end),
                    ip: address.ip(),
                    both_families: *both_families,
                    reuse_address: *reuse_address,
                    reuse_port: *reuse_port,
                };
                let mut ports = self.ports(end.kind).lock();
                ports.entry(address.port()).or_default().push(bound);
            }
            ClaimState::Abstract(name) => {
                let mut hidden = self.hidden.lock();
                hidden.insert(name.clone(), Arc::downgrade(end));
            }
            ClaimState::Node(dev, ino) => self.claim_node(end, (*dev, *ino)),
        }
    }

    /// The count that [`Network::new_ino`] goes on from.
    #[must_use]
    pub fn next_ino(&self) -> u64 {
        self.next_ino.load(Ordering::Relaxed)
    }

    /// Goes on from a count.
    pub fn set_next_ino(&self, next: u64) {
        self.next_ino.store(next, Ordering::Relaxed);
    }
}

impl Claim {
    /// The claim of a socket that connects or sends without having been bound.
    #[must_use]
    pub fn automatic(family: Family, ip: IpAddr) -> Self {
        Self {
            address: SocketAddr::new(ip, 0),
            both_families: family == Family::Inet6,
            reuse_address: false,
            reuse_port: false,
        }
    }
}
