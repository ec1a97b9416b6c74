use vmm_abi::{Errno, Prot};

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
}

/// A mapper for address spaces that no processor runs in (fuzzing, unit tests).
#[derive(Debug, Default)]
pub struct NoMapper;

impl Mapper for NoMapper {
    fn protect(&self, _start: u64, _end: u64, _prot: Prot) -> Result<(), Errno> {
        Ok(())
    }
}
