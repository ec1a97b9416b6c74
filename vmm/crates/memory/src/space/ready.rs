//! What can be done before the saved memory that is to be brought back is known: it will be like that of another program of the same image.

use std::os::fd::AsRawFd;

use super::host::host_protection;
use super::restore::{PRIVATE, WithFile};
use super::{AddressSpace, Layout};
use crate::{Kind, MappingState, MemoryState, SaveError};

impl AddressSpace {
    /// Maps those files of a saved state that nobody writes to and that `lasting` says will be the same by their names, and makes room for
    /// what else is in it. [`AddressSpace::restore`] keeps what it would map again and takes the rest away.
    ///
    /// # Errors
    /// [`SaveError`]; the address space is then of no use.
    pub fn make_ready(
        &self,
        likely: &MemoryState,
        lasting: &dyn Fn(&str) -> bool,
        file: WithFile<'_>,
    ) -> Result<(), SaveError> {
        let mut layout = self.layout.write();
        for mapping in &likely.mappings {
            self.check_place(&mapping.vma)?;
        }
        self.make_room(likely)?;
        for mapping in &likely.mappings {
            let vma = &mapping.vma;
            match (&mapping.beneath, &vma.kind) {
                (Some(path), Kind::File { offset, .. }) if mapping.is_pure() && lasting(path) => {
                    let protection = host_protection(vma.prot);
                    file(path, &mut |fd| {
                        let fd = fd.as_raw_fd();
                        self.host_map(vma.start, vma.len(), protection, PRIVATE, fd, *offset)
                    })
                    .map_err(|errno| SaveError::Host("a mapped file", errno))?;
                    self.enter(vma)?;
                    layout.add(vma.clone());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Has all of it that can be touched be thought of at once, which costs less than one by one.
    pub(super) fn make_room(&self, state: &MemoryState) -> Result<(), SaveError> {
        state
            .make_room(&*self.mapper)
            .map_err(|errno| SaveError::Host("guest page tables", errno))
    }

    /// Takes away what [`AddressSpace::make_ready`] mapped and `state` has no use for.
    pub(super) fn keep_only(
        &self,
        layout: &mut Layout,
        state: &MemoryState,
    ) -> Result<(), SaveError> {
        let there: Vec<_> = layout.vmas.iter().cloned().collect();
        for vma in there {
            let mut mappings = state.mappings.iter();
            if !mappings.any(|mapping| mapping.is_pure() && mapping.vma == vma) {
                self.clear(layout, vma.start, vma.end)
                    .map_err(|errno| SaveError::Host("munmap", errno))?;
            }
        }
        Ok(())
    }

    /// Whether a mapping is there already, as [`AddressSpace::make_ready`] leaves it.
    pub(super) fn is_ready(layout: &Layout, mapping: &MappingState) -> bool {
        mapping.is_pure() && layout.vmas.find(mapping.vma.start) == Some(&mapping.vma)
    }
}
