use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};

use crate::failure::{Failure, Step};

/// Host name, and the loopback interface of a network namespace that has no other.
pub fn bring_up(name: &str) -> Result<(), Failure> {
    rustix::system::sethostname(name.as_bytes()).wall("host name")?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).wall("loopback")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up)
        .map_err(io::Error::other)
        .step("loopback")?;
    // SAFETY: the request names an interface and its flags, as SIOCSIFFLAGS reads it (netdevice(7)).
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            std::ptr::from_ref(&request),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error()).wall("loopback")
    } else {
        Ok(())
    }
}
