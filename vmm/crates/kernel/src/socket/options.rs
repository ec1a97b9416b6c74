//! Socket options (socket(7), tcp(7), ip(7), ipv6(7)): what has a meaning here is done, what merely tunes a
//! network that is not there is remembered and shown, what would promise more is refused.

use std::collections::BTreeMap;

use vmm_abi::{Errno, Timeval};
use vmm_snapshot::SocketOptions;
use zerocopy::{FromBytes, IntoBytes};

use super::{Family, Kind, Socket};
use std::sync::atomic::Ordering;

/// What was set.
#[derive(Debug, Default)]
pub struct Options {
    numbers: BTreeMap<(i32, i32), i32>,
    receive_timeout_us: u64,
    send_timeout_us: u64,
    linger: (i32, i32),
}

/// How the values of a number are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    /// Anything but 0 becomes 1.
    Truth,
    /// Within the bounds, else EINVAL.
    Within(i32, i32),
    /// Doubled within the bounds, as Linux does with buffer sizes.
    Buffer(i32, i32),
}

use Values::{Buffer, Truth, Within};

const ANY: Values = Within(i32::MIN, i32::MAX);
const BYTE: Values = Within(0, 255);
/// What SO_RCVBUF and SO_SNDBUF show unless set, and their bounds.
const BUFFER_BYTES: i32 = 212_992;
const LEAST_RECEIVE: i32 = 2304;
const LEAST_SEND: i32 = 4608;

/// Options that are numbers: level, name, values, what is shown unless set.
#[rustfmt::skip]
const NUMBERS: &[(i32, i32, Values, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, Truth, 0),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, Truth, 0),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, Truth, 0),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, Truth, 0),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE, Truth, 0),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, Truth, 0),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, Within(0, 6), 0),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, Within(1, 1), 1),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, Buffer(LEAST_RECEIVE, 2 * BUFFER_BYTES), BUFFER_BYTES),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, Buffer(LEAST_SEND, 2 * BUFFER_BYTES), BUFFER_BYTES),
];
#[rustfmt::skip]
const UNIX_NUMBERS: &[(i32, i32, Values, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_PASSCRED, Truth, 0),
];
#[rustfmt::skip]
const IP_NUMBERS: &[(i32, i32, Values, i32)] = &[
    (libc::IPPROTO_IP, libc::IP_TOS, BYTE, 0),
    (libc::IPPROTO_IP, libc::IP_TTL, Within(1, 255), 64),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, Within(0, 5), 1),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, Truth, 0),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, BYTE, 1),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, Truth, 1),
];
#[rustfmt::skip]
const IP6_NUMBERS: &[(i32, i32, Values, i32)] = &[
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, Truth, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, BYTE, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, Within(-1, 255), 64),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, Within(-1, 255), 1),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, Truth, 1),
];
#[rustfmt::skip]
const TCP_NUMBERS: &[(i32, i32, Values, i32)] = &[
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, Truth, 0),
    (libc::IPPROTO_TCP, libc::TCP_CORK, Truth, 0),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK, Truth, 1),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, Within(0, 65_495), 65_483),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, Within(1, 32_767), 7200),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, Within(1, 32_767), 75),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, Within(1, 127), 9),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT, Within(1, 127), 6),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2, ANY, 60),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, ANY, 0),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, Within(0, i32::MAX), 0),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, ANY, 0),
];

impl Options {
    fn truth(&self, level: i32, name: i32) -> bool {
        self.numbers.get(&(level, name)).is_some_and(|n| *n != 0)
    }

    /// IPV6_V6ONLY
    #[must_use]
    pub fn only_ipv6(&self) -> bool {
        self.truth(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)
    }

    /// SO_REUSEADDR
    #[must_use]
    pub fn reuses_address(&self) -> bool {
        self.truth(libc::SOL_SOCKET, libc::SO_REUSEADDR)
    }

    /// SO_REUSEPORT
    #[must_use]
    pub fn reuses_port(&self) -> bool {
        self.truth(libc::SOL_SOCKET, libc::SO_REUSEPORT)
    }

    /// As data.
    pub fn state(&self) -> SocketOptions {
        let numbers = self.numbers.iter();
        SocketOptions {
            numbers: numbers
                .map(|((level, name), n)| (*level, *name, *n))
                .collect(),
            receive_timeout_us: self.receive_timeout_us,
            send_timeout_us: self.send_timeout_us,
            linger: self.linger,
        }
    }

    /// From data.
    pub fn restored(state: &SocketOptions) -> Self {
        let numbers = state.numbers.iter();
        Self {
            numbers: numbers
                .map(|(level, name, n)| ((*level, *name), *n))
                .collect(),
            receive_timeout_us: state.receive_timeout_us,
            send_timeout_us: state.send_timeout_us,
            linger: state.linger,
        }
    }

    /// What an accepted connection has from its listener; here nothing that matters but the numbers.
    pub fn inherit(&mut self, from: &Options) {
        self.numbers.clone_from(&from.numbers);
    }
}

fn number(bytes: &[u8]) -> Result<i32, Errno> {
    let bytes = bytes.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

impl Socket {
    fn known(&self, level: i32, name: i32) -> Result<(Values, i32), Errno> {
        let tables: &[&[(i32, i32, Values, i32)]] = match (self.end.family, self.end.kind) {
            (Family::Unix, _) => &[NUMBERS, UNIX_NUMBERS],
            (Family::Inet, Kind::Stream) => &[NUMBERS, IP_NUMBERS, TCP_NUMBERS],
            (Family::Inet, _) => &[NUMBERS, IP_NUMBERS],
            (Family::Inet6, Kind::Stream) => &[NUMBERS, IP_NUMBERS, IP6_NUMBERS, TCP_NUMBERS],
            (Family::Inet6, _) => &[NUMBERS, IP_NUMBERS, IP6_NUMBERS],
        };
        let mut rows = tables.iter().copied().flatten();
        match rows.find(|row| row.0 == level && row.1 == name) {
            Some(row) => Ok((row.2, row.3)),
            None if level != libc::SOL_SOCKET && self.end.family == Family::Unix => {
                Err(Errno::EOPNOTSUPP)
            }
            None => Err(Errno::ENOPROTOOPT),
        }
    }

    /// setsockopt(2)
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL for a short or wrong value, EDOM for a wrong time.
    pub fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let mut options = self.options.lock();
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => options.receive_timeout_us = time(value)?,
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => options.send_timeout_us = time(value)?,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let (on, seconds) = value.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
                options.linger = (i32::from(*on != [0; 4]), number(seconds)?);
                let hard = options.linger == (1, 0) && self.end.is_tcp();
                self.resets.store(hard, Ordering::Relaxed);
            }
            _ => {
                let (values, _) = self.known(level, name)?;
                let wanted = number(value)?;
                let kept = match values {
                    Truth => i32::from(wanted != 0),
                    Within(least, most) if (least..=most).contains(&wanted) => wanted,
                    Within(..) => return Err(Errno::EINVAL),
                    Buffer(least, most) => wanted.saturating_mul(2).clamp(least, most),
                };
                options.numbers.insert((level, name), kept);
            }
        }
        Ok(())
    }

    /// getsockopt(2): the whole value.
    ///
    /// # Errors
    /// ENOPROTOOPT.
    pub fn option(&self, level: i32, name: i32, pid: i32) -> Result<Vec<u8>, Errno> {
        let options = self.options.lock();
        let number = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => return Ok(shown(options.receive_timeout_us)),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => return Ok(shown(options.send_timeout_us)),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let (on, seconds) = options.linger;
                return Ok([on.to_ne_bytes(), seconds.to_ne_bytes()].concat());
            }
            (libc::SOL_SOCKET, libc::SO_PEERCRED) if self.end.family == Family::Unix => {
                let peer = self.end.lock().connected;
                let identity = if peer { [pid, 0, 0] } else { [0, -1, -1] };
                return Ok(identity.as_bytes().to_vec());
            }
            (libc::SOL_SOCKET, libc::SO_TYPE) => self.end.kind.number(),
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => self.end.family.number(),
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => match (self.end.family, self.end.kind) {
                (Family::Unix, _) => 0,
                (_, Kind::Stream) => libc::IPPROTO_TCP,
                _ => libc::IPPROTO_UDP,
            },
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => i32::from(self.end.listens()),
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                let error = self.end.lock().error.take();
                error.map_or(0, |errno| errno.0)
            }
            _ => {
                let (_, default) = self.known(level, name)?;
                *options.numbers.get(&(level, name)).unwrap_or(&default)
            }
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    /// How long a call may wait (SO_RCVTIMEO, SO_SNDTIMEO), in nanoseconds.
    #[must_use]
    pub fn timeout_ns(&self, send: bool) -> Option<u64> {
        let options = self.options.lock();
        let us = if send {
            options.send_timeout_us
        } else {
            options.receive_timeout_us
        };
        (us > 0).then(|| us.saturating_mul(1000))
    }

    /// Whether messages are to come with the identity of their sender (SO_PASSCRED).
    #[must_use]
    pub fn passes_credentials(&self) -> bool {
        self.options
            .lock()
            .truth(libc::SOL_SOCKET, libc::SO_PASSCRED)
    }
}

fn time(value: &[u8]) -> Result<u64, Errno> {
    let (time, _) = Timeval::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    if !(0..1_000_000).contains(&time.microseconds) {
        return Err(Errno::EDOM);
    }
    // A negative time means not to wait at all; one microsecond is as near as can be told.
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let sum = seconds
        .saturating_mul(1_000_000)
        .saturating_add(time.microseconds.unsigned_abs());
    Ok(if time.seconds < 0 { 1 } else { sum })
}

fn shown(us: u64) -> Vec<u8> {
    let time = Timeval {
        seconds: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        microseconds: i64::try_from(us % 1_000_000).unwrap_or(0),
    };
    time.as_bytes().to_vec()
}
