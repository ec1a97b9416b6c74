//! Network and IPC namespaces of micro-VMs: empty but for a loopback interface, and used again.
//!
//! Making a pair and taking it apart costs the kernel more than a millisecond. The system calls that a monitor may make (seccomp/monitor.json) make no
//! socket, change no interface, and know neither System V IPC nor message queues, so that it leaves nothing behind in them; and they belong to sandboxd's
//! user namespace, so that no sandbox has any right over them. A container's function may do all that, so each container gets new ones.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Kept for sandboxes to come.
const MOST: usize = 64;

/// Pairs that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Namespaces(Mutex<Vec<Pair>>);

#[derive(Debug)]
struct Pair {
    network: OwnedFd,
    ipc: OwnedFd,
}

/// A pair which no other sandbox uses meanwhile. It is gone when it is dropped and no process is in it.
#[derive(Debug)]
pub(crate) struct Taken {
    pair: Pair,
    home: Arc<Namespaces>,
}

impl Namespaces {
    /// One of those that are there, or a new one.
    pub fn take(home: &Arc<Self>) -> io::Result<Taken> {
        let idle = home.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Taken {
            pair: match idle {
                Some(pair) => pair,
                None => make()?,
            },
            home: Arc::clone(home),
        })
    }
}

impl Taken {
    /// The network namespace and the IPC namespace.
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.pair.network.as_fd(), self.pair.ipc.as_fd()]
    }

    /// For another sandbox. The last process in it has ended.
    pub fn give_back(self) {
        let mut idle = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST {
            idle.push(self.pair);
        }
    }
}

/// By a thread of its own, which takes the namespaces on and ends; the descriptors keep them.
fn make() -> io::Result<Pair> {
    let made = std::thread::Builder::new()
        .name("namespaces".to_owned())
        .spawn(|| {
            // SAFETY: the thread leaves its network and IPC namespaces; no descriptor changes, and it opens a socket only after that.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWIPC) }?;
            bring_loopback_up()?;
            let open = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}"));
            Ok(Pair {
                network: open("net")?.into(),
                ipc: open("ipc")?.into(),
            })
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

    fn numbers(taken: &Taken) -> [u64; 2] {
        taken.as_fds().map(|namespace| {
            let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            std::fs::metadata(path).unwrap().ino()
        })
    }

    fn own() -> [u64; 2] {
        ["net", "ipc"].map(|kind| {
            let path = format!("/proc/thread-self/ns/{kind}");
            std::fs::metadata(path).unwrap().ino()
        })
    }

    #[test]
    fn a_pair_is_used_again_when_it_was_given_back_and_by_nobody_else_before() {
        let home = Arc::new(Namespaces::default());
        let own_before = own();
        let (first, second) = (
            Namespaces::take(&home).unwrap(),
            Namespaces::take(&home).unwrap(),
        );
        let first_numbers = numbers(&first);
        let all = [first_numbers, numbers(&second), own_before];
        for kind in 0..2 {
            let mut of_kind = all.map(|numbers| numbers[kind]).to_vec();
            of_kind.sort_unstable();
            of_kind.dedup();
            assert_eq!(of_kind.len(), 3, "{all:?}");
        }
        // The caller is where it was.
        assert_eq!(own(), own_before);
        first.give_back();
        assert_eq!(numbers(&Namespaces::take(&home).unwrap()), first_numbers);
        drop(second);
        assert!(home.0.lock().unwrap().is_empty());
    }
}
