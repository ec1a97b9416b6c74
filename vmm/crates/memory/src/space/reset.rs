//! Undoing all that a guest has done to memory since it was brought back. Nothing of the guest runs meanwhile.
//!
//! Afterwards each page is, byte for byte, that of the snapshot, and each mapping as it was: where the host's mappings have been replaced they
//! are made anew, where only protections differ these are set, and every page that is this process's own, wherever it could be written to, is
//! written over with what the snapshot holds or given back to the host.

use std::os::fd::{AsFd, BorrowedFd};

use vmm_abi::{Errno, PAGE_SIZE, Prot};

use super::ranges::Ranges;
use super::restore::WithFile;
use super::{AddressSpace, Layout};
use crate::copy::copy;
use crate::{Extent, Kind, MappingState, MemoryState, PageMap, SaveError, SavedFile, Vma, VmaSet};

/// Bytes that are written over instead of given back, those that were touched first: what one call touches is touched by the next one too, and a
/// first touch costs a guest ten times what the copy does. It bounds what an idle guest keeps.
const REWRITTEN_BYTES: u64 = 4 << 20;
/// Ranges this close to each other are looked through as one.
const SMALL_GAP: u64 = 1 << 20;

/// What has become of the host's mappings.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// They have been replaced.
    replaced: Ranges,
    /// They could be written to for some time.
    writable: Ranges,
    /// What is to be written over.
    usual: Ranges,
}

impl Changes {
    fn too_many(&self) -> bool {
        self.replaced.too_many || self.writable.too_many
    }
}

/// What was undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Bytes of the window whose mappings were made anew.
    pub remapped_bytes: u64,
    /// Pages that were written over.
    pub rewritten_pages: u64,
    /// Pages that were given back to the host.
    pub dropped_pages: u64,
    /// Whether pages of [`Kind::Special`] are gone, which the caller is to map again.
    pub special_gone: bool,
}

impl AddressSpace {
    /// From now on it is noted which of the host's mappings are replaced: [`AddressSpace::reset`] needs it.
    pub fn keep_track(&self) {
        *self.changes.lock() = Some(Changes::default());
    }

    /// Notes that a mapping of the host is about to be replaced.
    pub(super) fn note_change(&self, start: u64, len: u64) {
        if let Some(changes) = self.changes.lock().as_mut() {
            changes.replaced.add(start, start.saturating_add(len));
        }
    }

    /// Notes that a mapping is about to be one that can be written to.
    pub(super) fn note_writable(&self, start: u64, end: u64) {
        if let Some(changes) = self.changes.lock().as_mut() {
            changes.writable.add(start, end);
        }
    }

    /// Puts memory back to `state`, which it was brought back from before track was kept.
    ///
    /// # Errors
    /// [`SaveError`]; the address space is then of no use.
    pub fn reset(
        &self,
        state: &MemoryState,
        snapshot: &SavedFile,
        pages: &PageMap,
        file: WithFile<'_>,
    ) -> Result<Undone, SaveError> {
        let mut layout = self.layout.write();
        // What is done here is no change.
        let changes = self.changes.lock().take();
        let changes = changes.filter(|changes| !changes.too_many());
        let changes = changes.ok_or(SaveError::Limit)?;
        let mut undone = Undone::default();
        let mut fresh = Layout::default();
        let mut untouched = std::mem::take(&mut layout.vmas);
        for (&start, &end) in &changes.replaced.ends {
            untouched.remove(start, end);
            undone.remapped_bytes = undone
                .remapped_bytes
                .saturating_add(end.saturating_sub(start));
            undone.special_gone |= self.map_again(state, (start, end), snapshot.as_fd(), file)?;
        }
        self.protect_again(state, &untouched, &changes.replaced)?;
        let usual = self.clean_pages(state, snapshot, pages, changes, &mut undone)?;
        for mapping in &state.mappings {
            let special = matches!(mapping.vma.kind, Kind::Special(_));
            if !(special && undone.special_gone) {
                fresh.add(mapping.vma.clone());
            }
        }
        (fresh.heap_start, fresh.heap_end) = state.heap;
        *layout = fresh;
        self.peak.store(0, std::sync::atomic::Ordering::Relaxed);
        *self.changes.lock() = Some(Changes {
            usual,
            ..Changes::default()
        });
        Ok(undone)
    }

    /// Makes what is mapped in a range anew; answers whether special pages were there.
    fn map_again(
        &self,
        state: &MemoryState,
        (start, end): (u64, u64),
        snapshot: BorrowedFd<'_>,
        file: WithFile<'_>,
    ) -> Result<bool, SaveError> {
        self.mapper
            .protect(start, end, Prot::empty())
            .map_err(|errno| SaveError::Host("guest page tables", errno))?;
        self.blank(start, end.saturating_sub(start))
            .map_err(|errno| SaveError::Host("mmap", errno))?;
        let mut special = false;
        for mapping in overlapping(state, start, end) {
            if matches!(mapping.vma.kind, Kind::Special(_)) {
                special = true;
            } else {
                let part = slice(mapping, start, end);
                // The list of mappings is made from the state as a whole.
                self.restore_mapping(&part, snapshot, file)?;
                self.enter(&part.vma)?;
            }
        }
        Ok(special)
    }

    /// Sets protections to what they were where nothing else has been changed.
    fn protect_again(
        &self,
        state: &MemoryState,
        now: &VmaSet,
        replaced: &Ranges,
    ) -> Result<(), SaveError> {
        let mut wanted = VmaSet::default();
        for mapping in &state.mappings {
            wanted.insert(mapping.vma.clone());
        }
        for (&start, &end) in &replaced.ends {
            wanted.remove(start, end);
        }
        let bytes = |set: &VmaSet| {
            set.iter()
                .fold(0u64, |sum, vma| sum.saturating_add(vma.len()))
        };
        let mut met = 0u64;
        for vma in wanted.iter() {
            for part in now.overlapping(vma.start, vma.end) {
                met = met.saturating_add(part.len());
                if part.prot != vma.prot {
                    self.change(&part, vma.prot)
                        .map_err(|errno| SaveError::Host("mprotect", errno))?;
                }
            }
        }
        // Whatever is mapped now was mapped then, and the other way round, or it would have been noted.
        if met == bytes(&wanted) && met == bytes(now) {
            Ok(())
        } else {
            Err(SaveError::Malformed(0))
        }
    }

    /// Writes over what pages of its own this process has in the window, or gives them back. Answers what is to be written over next time.
    fn clean_pages(
        &self,
        state: &MemoryState,
        snapshot: &SavedFile,
        pages: &PageMap,
        mut changes: Changes,
        undone: &mut Undone,
    ) -> Result<Ranges, SaveError> {
        for mapping in &state.mappings {
            if mapping.vma.prot.contains(Prot::WRITE) {
                changes.writable.add(mapping.vma.start, mapping.vma.end);
            }
        }
        if changes.writable.too_many {
            return Err(SaveError::Limit);
        }
        let Some(own) = self.own_ranges(pages, &changes.writable) else {
            // A host that cannot tell: all of it comes back when it is touched.
            self.give_back(0, self.window.size())?;
            return Ok(changes.usual);
        };
        let mut usual = changes.usual;
        let mut room = REWRITTEN_BYTES.saturating_sub(usual.bytes());
        for (start, end) in own {
            let mut at = start;
            usual.add_within(start, end, &mut room);
            for (low, high) in usual.within(start, end) {
                for (low, high) in self.write_over(state, low, high, snapshot)? {
                    let bytes = high.saturating_sub(low);
                    undone.rewritten_pages =
                        undone.rewritten_pages.saturating_add(bytes / PAGE_SIZE);
                    undone.dropped_pages = undone
                        .dropped_pages
                        .saturating_add(low.saturating_sub(at) / PAGE_SIZE);
                    self.give_back(at, low)?;
                    at = high;
                }
            }
            undone.dropped_pages = undone
                .dropped_pages
                .saturating_add(end.saturating_sub(at) / PAGE_SIZE);
            self.give_back(at, end)?;
        }
        Ok(usual)
    }

    /// Where this process has pages of its own, by guest address; `None` by a host that cannot tell. Elsewhere than in `writable` it has none.
    fn own_ranges(&self, pages: &PageMap, writable: &Ranges) -> Option<Vec<(u64, u64)>> {
        let base = self.window.base() as u64;
        let mut found = Vec::new();
        let mut look = |start: u64, end: u64| {
            let host = (base.saturating_add(start), base.saturating_add(end));
            let own = pages.own_ranges(host.0, host.1)?.into_iter();
            found.extend(
                own.map(|(low, high)| (low.saturating_sub(base), high.saturating_sub(base))),
            );
            Some(())
        };
        let mut open: Option<(u64, u64)> = None;
        for (&start, &end) in &writable.ends {
            match &mut open {
                Some(last) if start.saturating_sub(last.1) <= SMALL_GAP => last.1 = end,
                _ => {
                    if let Some((low, high)) = open.replace((start, end)) {
                        look(low, high)?;
                    }
                }
            }
        }
        if let Some((low, high)) = open {
            look(low, high)?;
        }
        Some(found)
    }

    /// Copies into a range what the snapshot holds of it; answers where that was done.
    fn write_over(
        &self,
        state: &MemoryState,
        start: u64,
        end: u64,
        snapshot: &SavedFile,
    ) -> Result<Vec<(u64, u64)>, SaveError> {
        let mut done = Vec::new();
        let writable = |mapping: &&MappingState| mapping.vma.prot.contains(Prot::WRITE);
        for mapping in overlapping(state, start, end).filter(writable) {
            let mut at = start.max(mapping.vma.start);
            let last = end.min(mapping.vma.end);
            let first = mapping
                .extents
                .partition_point(|extent| extent.at.saturating_add(extent.len) <= at);
            for extent in mapping.extents.iter().skip(first) {
                let low = extent.at.max(at);
                let high = extent.at.saturating_add(extent.len).min(last);
                if low >= high {
                    break;
                }
                if mapping.beneath.is_none() && self.write_zeroes(at, low) {
                    done.push((at, low));
                }
                if self.copy_extent(extent, low, high, snapshot)? {
                    done.push((low, high));
                }
                at = high;
            }
            if mapping.beneath.is_none() && self.write_zeroes(at, last) {
                done.push((at, last));
            }
        }
        Ok(done)
    }

    /// Writes what untouched memory holds; whether that worked. Nothing is no work.
    fn write_zeroes(&self, start: u64, end: u64) -> bool {
        static ZEROES: [u8; 16 * PAGE_SIZE as usize] = [0; 16 * PAGE_SIZE as usize];
        let mut at = start;
        while at < end {
            let len = end.saturating_sub(at).min(ZEROES.len() as u64);
            let part = ZEROES.get(..len as usize).unwrap_or_default();
            if self.write(at, part).is_err() {
                return false;
            }
            at = at.saturating_add(len);
        }
        end > start
    }

    /// Copies what the snapshot holds of a range into it; whether that worked.
    fn copy_extent(
        &self,
        extent: &Extent,
        start: u64,
        end: u64,
        snapshot: &SavedFile,
    ) -> Result<bool, SaveError> {
        let len = end.saturating_sub(start);
        let into = start.checked_sub(extent.at);
        let Some(offset) = into.and_then(|into| extent.offset.checked_add(into)) else {
            return Ok(false);
        };
        let bytes = snapshot
            .bytes(offset, len)
            .map_err(|error| SaveError::Host("mmap", error.into()))?;
        let (Some(to), Some(from)) = (self.window.host(start, len), bytes) else {
            return Ok(false);
        };
        // SAFETY: one range lies in the window, the other in the mapping of the snapshot, and no Rust reference points into either.
        let count = unsafe { copy(to, from, len as usize) };
        Ok(count as u64 == len)
    }

    /// Pages of a range go; what lies beneath is there again when it is touched.
    fn give_back(&self, start: u64, end: u64) -> Result<(), SaveError> {
        let len = end.saturating_sub(start);
        if len == 0 {
            return Ok(());
        }
        let failed = |errno| SaveError::Host("madvise", errno);
        let host = self.window.host(start, len).ok_or(failed(Errno::EFAULT))?;
        // SAFETY: the range lies in the window, which holds nothing that Rust refers to.
        if unsafe { libc::madvise(host.cast(), len as usize, libc::MADV_DONTNEED) } != 0 {
            return Err(failed(std::io::Error::last_os_error().into()));
        }
        Ok(())
    }
}

/// Mappings of a state, which is in order, that reach into a range.
fn overlapping(state: &MemoryState, start: u64, end: u64) -> impl Iterator<Item = &MappingState> {
    let first = state
        .mappings
        .partition_point(|mapping| mapping.vma.end <= start);
    let rest = state.mappings.get(first..).unwrap_or_default();
    rest.iter()
        .take_while(move |mapping| mapping.vma.start < end)
}

/// The part of a mapping that lies in a range.
fn slice(mapping: &MappingState, start: u64, end: u64) -> MappingState {
    let vma: Vma = mapping.vma.slice(start, end);
    let mut extents = Vec::new();
    for extent in &mapping.extents {
        let low = extent.at.max(vma.start);
        let high = extent.at.saturating_add(extent.len).min(vma.end);
        if low < high {
            extents.push(Extent {
                at: low,
                len: high.saturating_sub(low),
                offset: extent.offset.saturating_add(low.saturating_sub(extent.at)),
            });
        }
    }
    MappingState {
        vma,
        beneath: mapping.beneath.clone(),
        extents,
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]
#[path = "reset_tests.rs"]
mod tests;
