//! Socket addresses as bytes of guest memory (unix(7), ip(7), ipv6(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vmm_abi::Errno;
use vmm_snapshot::AddressState;

use super::Family;

/// Name of a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnixName {
    #[default]
    Unnamed,
    /// A path, without its closing NUL.
    Path(Vec<u8>),
    /// An abstract name, without its leading NUL.
    Abstract(Vec<u8>),
}

/// Where a socket is, or what it is to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(UnixName),
    /// IPv4 in its own form also where IPv6 would write it as a mapped address.
    Inet(SocketAddr),
    /// AF_UNSPEC: dissolves an association (connect(2)).
    Unspecified,
}

/// Most bytes of an address (`struct sockaddr_storage`), and of `sun_path`.
pub const MAX_BYTES: usize = 128;
const PATH_BYTES: usize = 108;
const UNIX_BYTES: usize = 110;
const INET_BYTES: usize = 16;
/// `struct sockaddr_in6` without its scope, which RFC 2133 did not have yet.
const INET6_LEAST: usize = 24;

impl Address {
    /// Reads what a guest gives to a socket of that family.
    ///
    /// # Errors
    /// EINVAL for a wrong length, EAFNOSUPPORT (EINVAL for Unix sockets) for another family.
    pub fn parse(family: Family, bytes: &[u8]) -> Result<Self, Errno> {
        let (number, rest) = bytes.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
        let number = i32::from(u16::from_ne_bytes(*number));
        if number == libc::AF_UNSPEC && family != Family::Unix {
            return Ok(Self::Unspecified);
        }
        match (family, number) {
            (Family::Unix, libc::AF_UNIX) if bytes.len() <= UNIX_BYTES => {
                Ok(Self::Unix(unix_name(rest)))
            }
            (Family::Unix, _) => Err(Errno::EINVAL),
            (Family::Inet, libc::AF_INET) => inet(bytes, rest),
            (Family::Inet6, libc::AF_INET6) => inet6(bytes, rest),
            (Family::Inet6, libc::AF_INET) if bytes.len() < INET6_LEAST => Err(Errno::EINVAL),
            _ if bytes.len() < INET_BYTES => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// As data; `None` for one that nothing has.
    #[must_use]
    pub fn state(&self) -> Option<AddressState> {
        match self {
            Self::Unix(UnixName::Unnamed) => Some(AddressState::Unnamed),
            Self::Unix(UnixName::Path(path)) => Some(AddressState::Path(path.clone())),
            Self::Unix(UnixName::Abstract(name)) => Some(AddressState::Abstract(name.clone())),
            Self::Inet(address) => Some(AddressState::Inet(*address)),
            Self::Unspecified => None,
        }
    }

    /// From data.
    #[must_use]
    pub fn restored(state: &AddressState) -> Self {
        match state {
            AddressState::Unnamed => Self::Unix(UnixName::Unnamed),
            AddressState::Path(path) => Self::Unix(UnixName::Path(path.clone())),
            AddressState::Abstract(name) => Self::Unix(UnixName::Abstract(name.clone())),
            AddressState::Inet(address) => Self::Inet(*address),
        }
    }

    /// The bytes that a socket of that family shows.
    #[must_use]
    pub fn to_bytes(&self, family: Family) -> Vec<u8> {
        let mut bytes = (family.number() as u16).to_ne_bytes().to_vec();
        match self {
            Self::Unix(UnixName::Path(path)) => {
                bytes.extend_from_slice(path);
                bytes.push(0);
            }
            Self::Unix(UnixName::Abstract(name)) => {
                bytes.push(0);
                bytes.extend_from_slice(name);
            }
            Self::Unix(UnixName::Unnamed) | Self::Unspecified => {}
            Self::Inet(address) => {
                bytes.extend_from_slice(&address.port().to_be_bytes());
                if family == Family::Inet6 {
                    let ip = match address.ip() {
                        IpAddr::V6(ip) => ip,
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    };
                    bytes.extend_from_slice(&[0; 4]);
                    bytes.extend_from_slice(&ip.octets());
                    bytes.extend_from_slice(&[0; 4]);
                } else {
                    if let IpAddr::V4(ip) = address.ip() {
                        bytes.extend_from_slice(&ip.octets());
                    }
                    bytes.resize(INET_BYTES, 0);
                }
            }
        }
        bytes
    }
}

fn unix_name(path: &[u8]) -> UnixName {
    match path.split_first() {
        None => UnixName::Unnamed,
        Some((0, name)) => UnixName::Abstract(name.to_vec()),
        Some(_) => {
            let end = path.iter().position(|byte| *byte == 0);
            let path = path.iter().take(end.unwrap_or(PATH_BYTES));
            UnixName::Path(path.copied().collect())
        }
    }
}

fn inet(bytes: &[u8], rest: &[u8]) -> Result<Address, Errno> {
    if bytes.len() < INET_BYTES {
        return Err(Errno::EINVAL);
    }
    let (port, rest) = rest.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
    let ip = rest.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    let ip = IpAddr::V4(Ipv4Addr::from(*ip));
    Ok(Address::Inet(SocketAddr::new(
        ip,
        u16::from_be_bytes(*port),
    )))
}

fn inet6(bytes: &[u8], rest: &[u8]) -> Result<Address, Errno> {
    if bytes.len() < INET6_LEAST {
        return Err(Errno::EINVAL);
    }
    let (port, rest) = rest.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
    let (_, rest) = rest.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
    let ip = rest.first_chunk::<16>().ok_or(Errno::EINVAL)?;
    let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
    Ok(Address::Inet(SocketAddr::new(
        ip,
        u16::from_be_bytes(*port),
    )))
}

/// The loopback address that a destination means.
///
/// # Errors
/// ENETUNREACH for anything beyond the guest: it has no other network.
pub fn reachable(ip: IpAddr) -> Result<IpAddr, Errno> {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ip if ip.is_loopback() => Ok(ip),
        _ => Err(Errno::ENETUNREACH),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use super::*;

    fn unix(path: &[u8]) -> Vec<u8> {
        [&[1, 0], path].concat()
    }

    #[test]
    fn unix_names_are_read_as_linux_does() {
        let name = |path: &[u8]| Address::parse(Family::Unix, &unix(path));
        let path = Address::Unix(UnixName::Path(b"a".to_vec()));
        assert_eq!(name(b"a\0rest"), Ok(path.clone()));
        assert_eq!(path.to_bytes(Family::Unix), unix(b"a\0"));
        assert_eq!(name(b""), Ok(Address::Unix(UnixName::Unnamed)));
        let hidden = Address::Unix(UnixName::Abstract(b"a\0".to_vec()));
        assert_eq!(name(b"\0a\0"), Ok(hidden));
        assert_eq!(name(&[b'x'; 109]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(Family::Unix, &[1]), Err(Errno::EINVAL));
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let mapped: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let bytes = Address::Inet(mapped).to_bytes(Family::Inet6);
        assert_eq!(bytes.len(), 28);
        let read = Address::parse(Family::Inet6, &bytes);
        assert_eq!(read, Ok(Address::Inet(mapped)));
    }

    #[test]
    fn short_and_foreign_addresses_are_refused() {
        assert_eq!(
            Address::parse(Family::Inet, &[2, 0, 0, 80]),
            Err(Errno::EINVAL)
        );
        let foreign = [77u8; 16];
        assert_eq!(
            Address::parse(Family::Inet, &foreign),
            Err(Errno::EAFNOSUPPORT)
        );
        assert_eq!(
            reachable("10.0.0.1".parse().unwrap()),
            Err(Errno::ENETUNREACH)
        );
    }
}
