//! Which pages of this process are there, and whose they are (proc_pid_pagemap(5)).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vmm_abi::PAGE_SIZE;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
/// Entries that are read at once.
const BATCH: usize = 4096;
/// Ranges that are asked for at once.
const RANGES: usize = 1024;

/// PAGEMAP_SCAN and its categories (linux/fs.h, from Linux 6.7 on).
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// struct pm_scan_arg
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    found: u64,
    found_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// struct page_region
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

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

    /// The same as ranges, found by the host without a look at what was never touched; `None` by a host that cannot.
    pub(crate) fn own_ranges(&self, start: u64, end: u64) -> Option<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        let mut regions = [Region::default(); RANGES];
        let mut at = start;
        while at < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start: at,
                end,
                found: regions.as_mut_ptr() as u64,
                found_len: RANGES as u64,
                // Neither a file's page nor the one that all untouched memory reads as.
                category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                ..Scan::default()
            };
            // SAFETY: the host writes to `scan`, and at most RANGES regions to where it points, both of which live here.
            let count = unsafe { libc::ioctl(self.0.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
            let count = usize::try_from(count).ok()?;
            found.extend(
                regions
                    .iter()
                    .take(count)
                    .map(|region| (region.start, region.end)),
            );
            if scan.walk_end <= at {
                return None;
            }
            at = scan.walk_end;
        }
        Some(found)
    }
}
