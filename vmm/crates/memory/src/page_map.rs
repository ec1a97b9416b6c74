//! Which pages of this process are there, and whose they are (proc_pid_pagemap(5)).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vmm_abi::PAGE_SIZE;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
/// Entries that are read at once.
const BATCH: usize = 4096;

/// The host's page map of this process, open. It is opened while files still may be.
#[derive(Debug)]
pub struct PageMap(File);

impl PageMap {
    /// Opens it.
    ///
    /// # Errors
    /// What the host says: /proc must be mounted.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Host addresses of pages in `[start, end)` that hold something of this process's own: touched, and no page of a file.
    ///
    /// # Errors
    /// What the host says.
    pub(crate) fn own_pages(&self, start: u64, end: u64) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        let mut buffer = vec![0u8; BATCH.saturating_mul(8)];
        let mut at = start;
        while at < end {
            let left = end.saturating_sub(at) / PAGE_SIZE;
            let count = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
            let part = buffer
                .get_mut(..count.saturating_mul(8))
                .unwrap_or_default();
            let offset = (at / PAGE_SIZE).saturating_mul(8);
            self.0.read_exact_at(part, offset)?;
            for entry in part.chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                if entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0 {
                    found.push(at);
                }
                at = at.saturating_add(PAGE_SIZE);
            }
        }
        Ok(found)
    }
}
