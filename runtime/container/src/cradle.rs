use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::cgroup::cell::CellCgroup;
use crate::cgroup::leftovers::remove_when_empty;
use crate::error::SpawnError;
use crate::instance::Shared;

/// Cradles kept ready: as many sandboxes can begin at once without waiting for a cgroup attach.
const READY: usize = 4;
/// After a failure the next attempt waits this long.
const PAUSE: Duration = Duration::from_secs(1);
/// Room for what ps shows: init writes its label over its arguments.
const TITLE_ROOM: usize = 96;

/// A `cloister-init` that waits for its order, in a cgroup of its own.
#[derive(Debug)]
pub(crate) struct Cradle {
    pub child: Child,
    pub socket: OwnedFd,
    pub cgroup: CellCgroup,
}

impl Cradle {
    /// Must be called by a thread that lives as long as the sandbox may: the kernel ends a sandbox with the thread that began it (PR_SET_PDEATHSIG).
    pub fn make(shared: &Shared) -> Result<Cradle, SpawnError> {
        let cgroup = CellCgroup::make(&shared.hierarchy, &shared.name, shared.next_cell())?;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(SpawnError::call("order socket"))?;
        let child = Command::new(&shared.init)
            .arg0("cloister-init")
            .arg(".".repeat(TITLE_ROOM))
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| SpawnError::Setup {
                step: "init".to_owned(),
                message: format!("{} cannot be started: {error}", shared.init.display()),
            })?;
        let cradle = Cradle {
            child,
            socket: ours,
            cgroup,
        };
        if let Err(error) = cradle.cgroup.attach(cradle.child.id()) {
            let _ = cradle.end();
            return Err(error.into());
        }
        Ok(cradle)
    }

    fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends a cradle that got no order.
    pub fn end(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.cgroup.remove_with(remove_when_empty);
        Ok(())
    }
}

impl Shared {
    /// A cradle at once where one is ready, else a new one, which takes up to 20 ms.
    pub fn take_cradle(&self) -> Result<Cradle, SpawnError> {
        loop {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = ready.cradles.pop_front();
            drop(ready);
            self.taken.notify_one();
            let Some(mut cradle) = taken else {
                return Cradle::make(self);
            };
            if cradle.alive() {
                return Ok(cradle);
            }
        }
    }

    /// Keeps cradles ready until the instance closes. Runs in a thread of its own.
    pub fn keep_cradles_ready(&self) {
        loop {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            while ready.cradles.len() >= READY && !ready.closing {
                ready = self
                    .taken
                    .wait(ready)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if ready.closing {
                return;
            }
            drop(ready);
            let made = Cradle::make(self);
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            match made {
                Ok(cradle) => ready.cradles.push_back(cradle),
                // Whoever needs one now meets the failure and tells of it.
                Err(_) if !ready.closing => {
                    let waited = self.taken.wait_timeout(ready, PAUSE);
                    drop(waited);
                }
                Err(_) => return,
            }
        }
    }
}
