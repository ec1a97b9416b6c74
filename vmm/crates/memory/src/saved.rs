use std::fmt;

use serde::{Deserialize, Serialize};
use vmm_abi::{Errno, Prot};

use crate::{Coming, Kind, Mapper, Vma};

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

impl MappingState {
    /// Whether it is a file's pages and nothing else, now and later.
    pub(crate) fn is_pure(&self) -> bool {
        self.extents.is_empty() && self.beneath.is_some() && !self.vma.prot.contains(Prot::WRITE)
    }

    fn is_special(&self) -> bool {
        matches!(self.vma.kind, Kind::Special(_))
    }
}

impl MemoryState {
    /// All mappings in the order in which guest page tables are made for them, on which depends which table is which: first those that can be made
    /// before the rest is known, last those that whoever brings it back makes anew.
    pub(crate) fn entered(&self) -> impl Iterator<Item = &MappingState> {
        let ranks = [0u8, 1, 2].into_iter();
        let rank = |mapping: &MappingState| match mapping {
            special if special.is_special() => 2,
            pure if pure.is_pure() => 0,
            _ => 1,
        };
        ranks.flat_map(move |wanted| {
            let of_rank = move |mapping: &&MappingState| rank(mapping) == wanted;
            self.mappings.iter().filter(of_rank)
        })
    }

    /// Has a mapper think at once of all of it that can be touched, which costs less than one by one.
    pub(crate) fn make_room(&self, mapper: &dyn Mapper) -> Result<(), Errno> {
        let reached = |mapping: &&MappingState| !mapping.vma.prot.is_empty();
        let mappings = self.mappings.iter().filter(reached);
        let mut coming = mappings.flat_map(|mapping| {
            let filled = mapping.is_special() || mapping.beneath.is_some();
            let extents = mapping.extents.iter().map(|extent| Coming {
                start: extent.at,
                end: extent.at.saturating_add(extent.len),
                holds: true,
            });
            extents.chain([Coming {
                start: mapping.vma.start,
                end: mapping.vma.end,
                holds: filled,
            }])
        });
        mapper.make_room(&mut coming)
    }

    /// Has a mapper make what it makes for an address space that this is brought back into.
    ///
    /// # Errors
    /// As [`Mapper::protect`].
    pub fn enter(&self, mapper: &dyn Mapper) -> Result<(), Errno> {
        self.make_room(mapper)?;
        self.entered().try_for_each(|mapping| {
            let vma = &mapping.vma;
            mapper.protect(vma.start, vma.end, vma.prot)
        })
    }
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
