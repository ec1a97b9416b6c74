use vmm_abi::{Errno, Prot};

use crate::Vma;

/// What must follow a change of guest memory beside the host's own mappings: page tables of the
/// guest and memory slots. Ranges are page-aligned and lie in the window.
///
/// The caller holds the address space's write lock, so calls never overlap.
pub trait Mapper: Send + Sync {
    /// Lets the guest reach `[start, end)` with `prot`; an empty `prot` takes the access away.
    ///
    /// # Errors
    /// ENOMEM when no room for page tables or slots is left; nothing may then be relied upon for
    /// the range but that a later call may set it again.
    fn protect(&self, start: u64, end: u64, prot: Prot) -> Result<(), Errno>;

    /// Makes, for mappings that are likely to come, what takes long and depends on their places alone. Of pieces of the window in which none of them
    /// [holds](Coming::holds) anything it is put off until somebody touches one.
    ///
    /// # Errors
    /// ENOMEM as for [`Mapper::protect`]; the mapper is then of no use.
    fn make_room(&self, coming: &mut dyn Iterator<Item = Coming>) -> Result<(), Errno>;

    /// Does what [`Mapper::protect`] put off until somebody would want it, in the piece of the window
    /// that holds `address`. `mappings` answers what lies in a range.
    ///
    /// # Errors
    /// ENOMEM as for [`Mapper::protect`].
    fn catch_up(&self, address: u64, mappings: &dyn Fn(u64, u64) -> Vec<Vma>) -> Result<(), Errno>;
}

/// A mapping that is likely to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    pub start: u64,
    pub end: u64,
    /// Something other than zeroes is in it.
    pub holds: bool,
}

/// A mapper for address spaces that no processor runs in (fuzzing, unit tests).
#[derive(Debug, Default)]
pub struct NoMapper;

impl Mapper for NoMapper {
    fn protect(&self, _start: u64, _end: u64, _prot: Prot) -> Result<(), Errno> {
        Ok(())
    }

    fn make_room(&self, _coming: &mut dyn Iterator<Item = Coming>) -> Result<(), Errno> {
        Ok(())
    }

    fn catch_up(
        &self,
        _address: u64,
        _mappings: &dyn Fn(u64, u64) -> Vec<Vma>,
    ) -> Result<(), Errno> {
        Ok(())
    }
}
