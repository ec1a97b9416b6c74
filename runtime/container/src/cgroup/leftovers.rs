use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::hierarchy::Hierarchy;
use crate::error::CgroupError;

/// What a former run left and this one removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub processes: usize,
    pub cgroups: usize,
    pub mounts: usize,
}

/// A killed process that is not gone after this is waiting for the kernel.
const GONE_BOUND: Duration = Duration::from_secs(5);

/// Kills what runs in `<hierarchy>/<name>` and below, and removes the folders, in every hierarchy.
pub(crate) fn clear(hierarchy: &Hierarchy, name: &Path) -> Result<Leftovers, CgroupError> {
    let mut found = Leftovers::default();
    let mut killed: Vec<u32> = Vec::new();
    for mounted in hierarchy.all() {
        let top = mounted.path.join(name);
        let folders = folders_of(&top);
        // A process may fork between a look and its end: look until nobody is there.
        let began = Instant::now();
        loop {
            let pids: Vec<u32> = folders.iter().flat_map(|folder| pids_of(folder)).collect();
            if pids.is_empty() {
                break;
            }
            if began.elapsed() > GONE_BOUND {
                return Err(CgroupError::Stuck {
                    path: top,
                    count: pids.len(),
                });
            }
            for pid in &pids {
                if !killed.contains(pid) {
                    killed.push(*pid);
                }
            }
            end(&pids);
        }
        // Deepest first.
        for folder in folders.iter().rev() {
            remove_when_empty(folder).map_err(CgroupError::file(folder, "removed"))?;
            found.cgroups = found.cgroups.saturating_add(1);
        }
    }
    found.processes = killed.len();
    Ok(found)
}

/// The folder and those below it, each after its parent.
fn folders_of(top: &Path) -> Vec<PathBuf> {
    if !top.is_dir() {
        return Vec::new();
    }
    let mut found = vec![top.to_path_buf()];
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(folders_of(&entry.path()));
        }
    }
    found
}

fn pids_of(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills processes and waits for their end, bounded. A pidfd is opened before the signal, so that no later process of the same number is hit.
fn end(pids: &[u32]) {
    let mut open: Vec<OwnedFd> = Vec::new();
    for pid in pids {
        let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            open.push(pidfd);
        }
    }
    for pidfd in &open {
        let mut wait = [PollFd::new(pidfd, PollFlags::IN)];
        let _ = poll(
            &mut wait,
            Some(&Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            }),
        );
    }
}

/// A cgroup whose last process has just ended may still be busy for a moment: the kernel tells of that by no event.
pub(crate) fn remove_when_empty(folder: &Path) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && began.elapsed() < GONE_BOUND =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}
