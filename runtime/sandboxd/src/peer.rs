//! Who is at the other end of an accepted connection.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// linux/socket.h (6.5 and later).
const SO_PEERPIDFD: i32 = 77;
/// Supplementary groups looked at; more than the kernel lets a process have.
const MAX_GROUPS: usize = 65_537;

/// Whether the process that connected is root or in `group`, by its first or a supplementary group.
pub fn may_connect(socket: impl AsFd, group: Option<u32>) -> bool {
    let Some(peer) = credentials(&socket) else {
        return false;
    };
    let Some(group) = group else {
        return peer.uid() == 0;
    };
    peer.uid() == 0 || peer.gid() == group || groups(socket).contains(&group)
}

/// SO_PEERCRED, unix(7).
fn credentials(socket: impl AsFd) -> Option<UnixCredentials> {
    getsockopt(&socket, sockopt::PeerCredentials).ok()
}

/// SO_PEERGROUPS, socket(7).
fn groups(socket: impl AsFd) -> Vec<u32> {
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let Ok(mut bytes) = libc::socklen_t::try_from(size_of_val(groups.as_slice())) else {
            return Vec::new();
        };
        // SAFETY: the kernel writes at most `bytes` bytes into the vector's initialised elements, and the needed size into `bytes`.
        let got = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        let count = (bytes as usize).checked_div(size_of::<u32>()).unwrap_or(0);
        if got == 0 {
            groups.truncate(count);
            return groups;
        }
        let small = std::io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE);
        if !small || count <= groups.len() || count > MAX_GROUPS {
            return Vec::new();
        }
        groups.resize(count, 0);
    }
}

/// A process that connected: its number here (0 if it lives where this one cannot see it), and a descriptor that becomes readable when it ends.
pub struct PeerProcess {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// The process that connected. None when it has ended or lives where this one cannot see it.
pub fn process(socket: impl AsFd) -> Option<PeerProcess> {
    let pid = credentials(&socket)?.pid();
    let pidfd = match peer_pidfd(&socket) {
        Some(pidfd) => pidfd,
        // Kernels before 6.5. The number could have been used again since the connection was made, if its owner ended in between: then
        // a stranger is watched, and the sandbox ends by end of file on its connection.
        None => pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?,
    };
    Some(PeerProcess { pid, pidfd })
}

fn peer_pidfd(socket: impl AsFd) -> Option<OwnedFd> {
    let mut pidfd: i32 = -1;
    let mut bytes = libc::socklen_t::try_from(size_of::<i32>()).ok()?;
    // SAFETY: the kernel writes at most `bytes` bytes, which is the size of `pidfd`.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &mut bytes,
        )
    };
    if got != 0 || pidfd < 0 {
        return None;
    }
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec) and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Whether the process of a pidfd has ended.
pub fn has_ended(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Waits until the process of a pidfd has ended.
pub fn await_end(pidfd: impl AsFd) {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn knows_the_process_that_connected() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = process(&ours).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert!(!has_ended(&peer.pidfd));
    }

    #[test]
    fn root_may_connect_whatever_the_group() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(may_connect(&ours, None));
        assert!(may_connect(&ours, Some(1)));
    }

    #[test]
    fn an_ended_process_is_known_as_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        assert!(has_ended(&pidfd));
    }
}
