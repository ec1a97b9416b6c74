//! Which pages of a snapshot its first answer writes. Those that are brought back later have them copied at once, which costs a fraction of what
//! each costs when the guest meets it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use cloister_container::Sandbox;
use serde_json::json;

use crate::controlling::unknown;
use crate::daemon::Daemon;
use crate::jobs::{Asker, Job};
use crate::refusal::{Code, Refusal};
use crate::snapshots::Snapshot;

const PAGE: u64 = 4096;
/// Pages beyond which it is not a first answer's work any more, and pieces of them.
const MOST_PAGES: u64 = 1024;
const MOST_RANGES: usize = 512;
/// Entries of a page map that are read at once.
const BATCH: usize = 4096;
/// proc_pid_pagemap(5).
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;

/// Pages of a snapshot's file: the first, and how many.
pub type Ranges = Vec<(u64, u64)>;

/// A look at a sandbox that was brought back.
pub struct LearnJob {
    pub key: u64,
    pub sandbox: Arc<Sandbox>,
    pub snapshot: Arc<Snapshot>,
    pub asker: Asker,
}

impl LearnJob {
    /// Looks, and notes what it finds with the snapshot. Answers how many pages that are.
    pub fn run(&self) -> Result<u64, Refusal> {
        let found = self.written().map_err(|error| {
            Refusal::new(
                Code::SetupFailed,
                format!("The sandbox's pages cannot be looked at: {error}."),
                "See sandboxd's log.",
            )
        })?;
        let pages = found
            .iter()
            .fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        if pages <= MOST_PAGES && found.len() <= MOST_RANGES {
            self.snapshot.learn(found);
        }
        Ok(pages)
    }

    fn written(&self) -> io::Result<Ranges> {
        let init = self.sandbox.pid();
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        let monitor = children.split(' ').next().unwrap_or_default();
        let inode = self.snapshot.file().metadata()?.ino();
        let maps = fs::read_to_string(format!("/proc/{monitor}/maps"))?;
        let pages = File::open(format!("/proc/{monitor}/pagemap"))?;
        let mut found = Ranges::new();
        for mapping in maps.lines().filter_map(|line| mapping_of(line, inode)) {
            own_pages(&pages, &mapping, &mut found)?;
            if found.len() > MOST_RANGES {
                break;
            }
        }
        Ok(found)
    }
}

/// Addresses of a mapping, and where in its file it begins, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
}

/// A line of proc_pid_maps(5) about a memory file of that inode.
fn mapping_of(line: &str, inode: u64) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let found: u64 = words.nth(1)?.parse().ok()?;
    let name = words.next()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    (found == inode && name.starts_with("/memfd:")).then_some(())?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
    })
}

/// Pages of a private mapping that are the process's own copies.
fn own_pages(pages: &File, mapping: &Mapping, found: &mut Ranges) -> io::Result<()> {
    let mut buffer = vec![0u8; BATCH.saturating_mul(8)];
    let mut at = mapping.start / PAGE;
    let end = mapping.end / PAGE;
    let first = mapping.offset / PAGE;
    while at < end {
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(BATCH);
        let part = buffer
            .get_mut(..left.min(BATCH).saturating_mul(8))
            .unwrap_or_default();
        pages.read_exact_at(part, at.saturating_mul(8))?;
        for entry in part.chunks_exact(8) {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            if entry & PRESENT != 0 && entry & OF_FILE == 0 {
                let page = first.saturating_add(at.saturating_sub(mapping.start / PAGE));
                match found.last_mut() {
                    Some((start, count)) if start.saturating_add(*count) == page => {
                        *count = count.saturating_add(1);
                    }
                    _ => found.push((page, 1)),
                }
            }
            at = at.saturating_add(1);
        }
    }
    Ok(())
}

impl Daemon {
    /// `learn`: looks at a sandbox that has just given its first answer.
    pub(crate) fn learn(&mut self, asker: Asker, id: &str) -> Result<(), Refusal> {
        let key = self.sandboxes.key(id).ok_or_else(|| unknown(id))?;
        let entry = self.sandboxes.get_mut(key).ok_or_else(|| unknown(id))?;
        let sandbox = match &entry.sandbox {
            Some(sandbox) if !entry.killed && !entry.exited => Arc::clone(sandbox),
            _ => return Err(unknown(id)),
        };
        let snapshot = entry
            .snapshot
            .clone()
            .ok_or_else(|| Refusal::bad("The sandbox was not brought back from a snapshot."))?;
        entry.jobs = entry.jobs.saturating_add(1);
        self.jobs.start_job(Job::Learn(LearnJob {
            key,
            sandbox,
            snapshot,
            asker,
        }));
        Ok(())
    }

    pub(crate) fn learned(&mut self, key: u64, outcome: Result<u64, Refusal>, asker: Asker) {
        match outcome {
            Ok(pages) => self.answer(asker, &json!({"ok": true, "pages": pages})),
            Err(refusal) => self.answer(asker, &refusal),
        }
        self.job_done(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_line_about_that_file_is_told_from_others() {
        let line = "7f00000000-7f00003000 rw-p 00002000 00:01 77    /memfd:snapshot (deleted)";
        let mapping = Mapping {
            start: 0x7f_0000_0000,
            end: 0x7f_0000_3000,
            offset: 0x2000,
        };
        assert_eq!(mapping_of(line, 77), Some(mapping));
        assert_eq!(mapping_of(line, 78), None);
        for line in [
            "",
            "7f-80",
            "7f00-8000 rw-p 0 00:01 77",
            "x-y rw-p 0 00:01 77 /memfd:a",
            "7f00-8000 rw-p 0 00:01 77 /etc/77",
        ] {
            assert_eq!(mapping_of(line, 77), None, "{line}");
        }
    }

    #[test]
    fn pages_that_were_written_are_found() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = 8 * PAGE as usize;
        file.write_all(&vec![7; bytes]).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::PRIVATE,
                file.as_fd(),
                0,
            )
        };
        let start = start.unwrap().cast::<u8>();
        for page in [1usize, 2, 6] {
            // SAFETY: within the mapping, which is nobody else's.
            unsafe { start.add(page * PAGE as usize).write_volatile(1) };
        }
        // SAFETY: as above.
        assert_eq!(unsafe { start.read_volatile() }, 7);
        let mapping = Mapping {
            start: start as u64,
            end: start as u64 + bytes as u64,
            offset: 16 * PAGE,
        };
        let mut found = Ranges::new();
        own_pages(
            &File::open("/proc/self/pagemap").unwrap(),
            &mapping,
            &mut found,
        )
        .unwrap();
        assert_eq!(found, [(17, 2), (22, 1)]);
    }
}
