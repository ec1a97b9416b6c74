//! The processes that asked for sandboxes. sandboxd keeps no copy of a sandbox's socket, so it cannot see that its client has gone; a
//! runner sees end of file, but one that is busy with hostile code may never look. So each client process is watched, and what it
//! asked for ends with it.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;

use crate::peer::{PeerProcess, has_ended};

struct Client {
    pid: i32,
    pidfd: OwnedFd,
    sandboxes: BTreeSet<u64>,
}

/// Client processes by a key of their own, which is never used twice.
#[derive(Default)]
pub struct Clients {
    known: HashMap<u64, Client>,
    by_pid: HashMap<i32, u64>,
    next: u64,
}

/// What `join` found.
pub struct Joined<'a> {
    pub client: u64,
    /// To be watched from now on, for a client that was not known.
    pub watch: Option<&'a OwnedFd>,
}

impl Clients {
    /// Notes that the process asked for a sandbox.
    pub fn join(&mut self, process: PeerProcess, sandbox: u64) -> Joined<'_> {
        let known = self.by_pid.get(&process.pid).copied().filter(|key| {
            // A number is used again only after its process has ended.
            let client = self.known.get(key);
            client.is_some_and(|client| !has_ended(&client.pidfd))
        });
        let key = known.unwrap_or_else(|| {
            self.next = self.next.saturating_add(1);
            // Processes that cannot be seen from here are all 0.
            if process.pid > 0 {
                self.by_pid.insert(process.pid, self.next);
            }
            self.next
        });
        let client = self.known.entry(key).or_insert_with(|| Client {
            pid: process.pid,
            pidfd: process.pidfd,
            sandboxes: BTreeSet::new(),
        });
        client.sandboxes.insert(sandbox);
        Joined {
            client: key,
            watch: known.is_none().then_some(&client.pidfd),
        }
    }

    /// Notes that a sandbox is gone. Gives the descriptor to watch no longer when it was the client's last.
    pub fn leave(&mut self, client: u64, sandbox: u64) -> Option<OwnedFd> {
        let known = self.known.get_mut(&client)?;
        known.sandboxes.remove(&sandbox);
        if !known.sandboxes.is_empty() {
            return None;
        }
        self.remove(client).map(|client| client.pidfd)
    }

    /// The client's process has ended: what it asked for, and the descriptor to watch no longer.
    pub fn ended(&mut self, client: u64) -> Option<(BTreeSet<u64>, OwnedFd)> {
        let client = self.remove(client)?;
        Some((client.sandboxes, client.pidfd))
    }

    fn remove(&mut self, key: u64) -> Option<Client> {
        let client = self.known.remove(&key)?;
        if self.by_pid.get(&client.pid) == Some(&key) {
            self.by_pid.remove(&client.pid);
        }
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::process::{Child, Command};

    fn process(child: &Child) -> PeerProcess {
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        PeerProcess { pid, pidfd }
    }

    #[test]
    fn a_client_is_watched_once_while_it_has_sandboxes() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut clients = Clients::default();
        let first = clients.join(process(&child), 1);
        assert!(first.watch.is_some());
        let key = first.client;
        let second = clients.join(process(&child), 2);
        assert!(second.watch.is_none());
        assert_eq!(second.client, key);
        assert!(clients.leave(key, 1).is_none());
        assert!(clients.leave(key, 2).is_some());
        assert!(clients.leave(key, 2).is_none());
        let third = clients.join(process(&child), 3);
        assert!(third.watch.is_some());
        assert_ne!(third.client, key);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_number_used_again_is_another_client() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut clients = Clients::default();
        let first = clients.join(process(&child), 1).client;
        let again = process(&child);
        child.kill().unwrap();
        child.wait().unwrap();
        let second = clients.join(again, 2).client;
        assert_ne!(first, second);
        assert_eq!(clients.ended(first).unwrap().0, BTreeSet::from([1]));
        assert_eq!(clients.ended(second).unwrap().0, BTreeSet::from([2]));
        assert!(clients.by_pid.is_empty());
    }
}
