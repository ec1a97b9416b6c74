//! Bringing saved memory back: pages of the snapshot's file, copied when they are written.

use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_abi::{Errno, PAGE_SIZE, Prot};

use super::AddressSpace;
use super::host::host_protection;
use crate::{Extent, Kind, MappingState, MemoryState, SaveError, Vma};

pub(super) const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_NORESERVE;

/// Calls the second argument with the file of that path in the guest.
pub type WithFile<'a> = &'a mut dyn FnMut(&str, UseFile<'_>) -> Result<(), Errno>;
type UseFile<'a> = &'a mut dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno>;

fn aligned(value: u64) -> bool {
    value % PAGE_SIZE == 0
}

impl AddressSpace {
    /// Maps what was saved into an address space that is empty, or was made ready. What is [`Kind::Special`] is left to the caller.
    ///
    /// # Errors
    /// [`SaveError`]; the address space is then of no use.
    pub fn restore(
        &self,
        state: &MemoryState,
        snapshot: BorrowedFd<'_>,
        file: WithFile<'_>,
    ) -> Result<(), SaveError> {
        let mut layout = self.layout.write();
        self.keep_only(&mut layout, state)?;
        for mapping in &state.mappings {
            self.check_place(&mapping.vma)?;
        }
        self.make_room(state)?;
        let mut end = 0;
        // Where those begin that are there already, in ascending order.
        let mut ready = Vec::new();
        for mapping in &state.mappings {
            let vma = &mapping.vma;
            if vma.start < end {
                return Err(SaveError::Malformed(vma.start));
            }
            end = vma.end;
            if Self::is_ready(&layout, mapping) {
                ready.push(vma.start);
            } else if !matches!(vma.kind, Kind::Special(_)) {
                self.restore_mapping(mapping, snapshot, file)?;
                layout.add(vma.clone());
            }
        }
        for mapping in state.entered() {
            let special = matches!(mapping.vma.kind, Kind::Special(_));
            if !special && ready.binary_search(&mapping.vma.start).is_err() {
                self.enter(&mapping.vma)?;
            }
        }
        (layout.heap_start, layout.heap_end) = state.heap;
        let writable = |mapping: &&MappingState| mapping.vma.prot.contains(Prot::WRITE);
        let extents = state
            .mappings
            .iter()
            .filter(writable)
            .flat_map(|mapping| &mapping.extents);
        let held = extents.fold(0u64, |sum, extent| sum.saturating_add(extent.len));
        if held > self.limits.bytes {
            return Err(SaveError::Limit);
        }
        Ok(())
    }

    /// Whether a mapping may be where it says.
    pub(super) fn check_place(&self, vma: &Vma) -> Result<(), SaveError> {
        let sound = vma.end > vma.start && aligned(vma.start | vma.end);
        if !sound || self.window.host(vma.start, vma.len()).is_none() {
            return Err(SaveError::Malformed(vma.start));
        }
        Ok(())
    }

    /// The host's part of it: the guest's tables are to follow ([`AddressSpace::enter`]).
    pub(super) fn restore_mapping(
        &self,
        mapping: &MappingState,
        snapshot: BorrowedFd<'_>,
        file: WithFile<'_>,
    ) -> Result<(), SaveError> {
        let vma = &mapping.vma;
        let failed = |errno| SaveError::Host("mmap", errno);
        let protection = host_protection(vma.prot);
        let whole = matches!(mapping.extents.as_slice(), [one] if (one.at, one.len) == (vma.start, vma.len()));
        match (&mapping.beneath, &vma.kind) {
            _ if whole => {}
            (Some(path), Kind::File { offset, .. }) => {
                let (start, len) = (vma.start, vma.len());
                file(path, &mut |fd| {
                    self.host_map(start, len, protection, PRIVATE, fd.as_raw_fd(), *offset)
                })
                .map_err(|errno| SaveError::Host("a mapped file", errno))?;
            }
            (Some(_), _) => return Err(SaveError::Malformed(vma.start)),
            // The reserve that is there already only lacks the permission.
            (None, _) if protection != libc::PROT_NONE => {
                self.host_protect(vma.start, vma.len(), protection)
                    .map_err(failed)?;
            }
            (None, _) => {}
        }
        let mut end = vma.start;
        for extent in &mapping.extents {
            let Extent { at, len, offset } = *extent;
            let last = at.checked_add(len).filter(|last| *last <= vma.end);
            let sound = at >= end && len > 0 && aligned(at | len | offset);
            let last = last
                .filter(|_| sound)
                .ok_or(SaveError::Malformed(vma.start))?;
            self.host_map(at, len, protection, PRIVATE, snapshot.as_raw_fd(), offset)
                .map_err(failed)?;
            end = last;
        }
        Ok(())
    }

    /// Lets the guest reach a mapping.
    pub(super) fn enter(&self, vma: &Vma) -> Result<(), SaveError> {
        self.mapper
            .protect(vma.start, vma.end, vma.prot)
            .map_err(|errno| SaveError::Host("guest page tables", errno))
    }
}
