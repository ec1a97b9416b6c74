//! Network namespaces of micro-VMs: empty but for a loopback interface, and used again.
//!
//! Making one and taking it apart costs the kernel about a millisecond. The system calls that a monitor may make (seccomp/monitor.json) make no
//! socket and change no interface, so that it leaves nothing behind in its namespace; and the namespace belongs to sandboxd's user
//! namespace, so that no sandbox has any right over it. A container's function may do all that, so each container gets a new one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Kept for sandboxes to come.
const MOST: usize = 64;

/// Those that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Networks(Mutex<Vec<OwnedFd>>);

/// One, which no other sandbox uses meanwhile. It is gone when it is dropped and no process is in it.
#[derive(Debug)]
pub(crate) struct Network {
    namespace: OwnedFd,
    home: Arc<Networks>,
}

impl Networks {
    /// One of those that are there, or a new one.
    pub fn take(home: &Arc<Self>) -> io::Result<Network> {
        let idle = home.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Network {
            namespace: match idle {
                Some(namespace) => namespace,
                None => make()?,
            },
            home: Arc::clone(home),
        })
    }
}

impl Network {
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// For another sandbox. The last process in it has ended.
    pub fn give_back(self) {
        let mut idle = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST {
            idle.push(self.namespace);
        }
    }
}

/// By a thread of its own, which takes the namespace on and ends; the descriptor keeps it.
fn make() -> io::Result<OwnedFd> {
    let made = std::thread::Builder::new()
        .name("network".to_owned())
        .spawn(|| {
            // SAFETY: the thread leaves its network namespace; no descriptor changes, and it opens a socket only after that.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            bring_loopback_up()?;
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        })?;
    made.join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that makes it has ended")))
}

/// Brings the loopback interface of the caller's network namespace up.
pub fn bring_loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).map_err(io::Error::other)?;
    // SAFETY: the request names an interface and its flags, as SIOCSIFFLAGS reads it (netdevice(7)).
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            std::ptr::from_ref(&request),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn number(network: &Network) -> u64 {
        let path = format!("/proc/self/fd/{}", network.as_fd().as_raw_fd());
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn one_is_used_again_when_it_was_given_back_and_by_nobody_else_before() {
        let home = Arc::new(Networks::default());
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let (first, second) = (
            Networks::take(&home).unwrap(),
            Networks::take(&home).unwrap(),
        );
        let numbers = [number(&first), number(&second)];
        assert!(numbers[0] != numbers[1] && !numbers.contains(&own));
        // The caller is where it was.
        assert_eq!(
            std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino(),
            own
        );
        first.give_back();
        assert_eq!(number(&Networks::take(&home).unwrap()), numbers[0]);
        drop(second);
        assert!(home.0.lock().unwrap().is_empty());
    }
}
