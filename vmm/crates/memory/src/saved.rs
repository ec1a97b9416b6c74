use std::fmt;

use serde::{Deserialize, Serialize};
use vmm_abi::Errno;

use crate::Vma;

/// Bytes of a snapshot's file that lie somewhere: in guest memory, or in a file of the guest. All three
/// numbers are multiples of the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Guest address, or offset in the guest's file.
    pub at: u64,
    pub len: u64,
    /// Where the bytes begin in the snapshot's file.
    pub offset: u64,
}

/// The mappings of an address space and what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryState {
    pub mappings: Vec<MappingState>,
    /// First and last address of the break area.
    pub heap: (u64, u64),
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingState {
    pub vma: Vma,
    /// Path of the file whose pages lie beneath, from the offset in [`crate::Kind::File`] on; `None` for zeroes.
    pub beneath: Option<String>,
    /// Pages that differ from what lies beneath, in ascending order.
    pub extents: Vec<Extent>,
}

/// The file that pages are saved to. Only its user knows how it is laid out.
pub trait PageStore {
    /// Sets bytes aside, a whole number of pages, all zero at first; answers where they begin: `rest` bytes past
    /// a multiple of `align`, so that large pages of guest and file coincide.
    ///
    /// # Errors
    /// ENOSPC.
    fn reserve(&mut self, len: u64, align: u64, rest: u64) -> Result<u64, Errno>;

    /// Writes into what has been set aside.
    ///
    /// # Errors
    /// What the host says.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno>;
}

/// Why memory cannot be saved or brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveError {
    /// Memory of this name is shared with something that is not part of it.
    Shared(String),
    /// The host.
    Host(&'static str, Errno),
    /// A saved state that cannot be: the mapping at this address.
    Malformed(u64),
    /// It would need more memory than there may be.
    Limit,
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(name) => write!(f, "{name} is mapped shared and writable"),
            Self::Host(what, errno) => write!(f, "{what}: {errno}"),
            Self::Malformed(address) => write!(f, "the mapping at {address:#x} cannot be"),
            Self::Limit => f.write_str("its memory is more than the limit"),
        }
    }
}

impl std::error::Error for SaveError {}
