//! The file of a snapshot: pages first, then the state, then a trailer of fixed size at the very end.

use std::fmt;
use std::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Snapshot;

/// Which layout of state and file this is. A file of another is refused. `tests/goldens/README.md` says what to do
/// when it is raised.
pub const FORMAT: u32 = 3;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"cloistvm";
/// Most bytes a state may have: what lies in pipes and sockets is part of it, pages are not.
const MOST_STATE: u64 = 64 << 20;

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It is cut short, or no snapshot at all.
    NoTrailer,
    /// It has another format: this one.
    Format(u32),
    /// The state's bytes are not those that were written.
    State,
    /// The pages' bytes are not those that were written.
    Pages,
    /// The state says what cannot be.
    Malformed(String),
    /// The state is larger than any may be.
    TooLarge,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrailer => f.write_str("it is cut short or no snapshot"),
            Self::Format(format) => write!(f, "it has format {format}, not {FORMAT}"),
            Self::State => f.write_str("its state is damaged"),
            Self::Pages => f.write_str("its pages are damaged"),
            Self::TooLarge => write!(
                f,
                "its state (pipes, sockets, mappings) is larger than {} MiB",
                MOST_STATE >> 20
            ),
            Self::Malformed(what) => write!(f, "its state is malformed: {what}"),
        }
    }
}

impl std::error::Error for FileError {}

/// What the end of the file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of pages, which is where the state begins.
    pub pages: u64,
    pub state: u64,
    /// CRC-32 of all pages.
    pub pages_crc: u32,
    pub state_crc: u32,
}

/// The last [`TRAILER_BYTES`] of the file, little endian. Magic and format stay where they are in every format.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawTrailer {
    magic: [u8; 8],
    format: U32,
    /// CRC-32 of all bytes behind this one.
    own_crc: U32,
    pages: U64,
    state: U64,
    pages_crc: U32,
    state_crc: U32,
    /// 0
    reserved: U64,
}

/// Where the bytes begin that [`RawTrailer::own_crc`] is of.
const CHECKED_FROM: usize = offset_of!(RawTrailer, pages);

// What stands in files is not to move by accident: whoever changes a line here makes a new [`FORMAT`].
const _: () = {
    assert!(size_of::<RawTrailer>() == TRAILER_BYTES);
    assert!(offset_of!(RawTrailer, magic) == 0);
    assert!(offset_of!(RawTrailer, format) == 8);
    assert!(offset_of!(RawTrailer, own_crc) == 12);
    assert!(offset_of!(RawTrailer, pages) == 16);
    assert!(offset_of!(RawTrailer, state) == 24);
    assert!(offset_of!(RawTrailer, pages_crc) == 32);
    assert!(offset_of!(RawTrailer, state_crc) == 36);
    assert!(offset_of!(RawTrailer, reserved) == 40);
    // Types of Linux are kept field by field; a field more or less shows here.
    assert!(size_of::<vmm_abi::Registers>() == 20 * 8);
    assert!(size_of::<vmm_abi::Rlimit>() == 16);
    assert!(size_of::<vmm_abi::SigAction>() == 32);
    assert!(size_of::<vmm_abi::SigStack>() == 24);
    assert!(size_of::<vmm_abi::SigInfo>() == 128);
};

impl Trailer {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TRAILER_BYTES] {
        let mut raw = RawTrailer {
            magic: *MAGIC,
            format: U32::new(FORMAT),
            own_crc: U32::ZERO,
            pages: U64::new(self.pages),
            state: U64::new(self.state),
            pages_crc: U32::new(self.pages_crc),
            state_crc: U32::new(self.state_crc),
            reserved: U64::ZERO,
        };
        raw.own_crc = U32::new(raw.checksum());
        zerocopy::transmute!(raw)
    }

    /// Reads the end of a file that has `size` bytes.
    ///
    /// # Errors
    /// [`FileError`] for what is no trailer, or does not fit the size.
    pub fn from_bytes(bytes: &[u8; TRAILER_BYTES], size: u64) -> Result<Self, FileError> {
        let raw: RawTrailer = zerocopy::transmute!(*bytes);
        if raw.magic != *MAGIC {
            return Err(FileError::NoTrailer);
        }
        if raw.format.get() != FORMAT {
            return Err(FileError::Format(raw.format.get()));
        }
        let trailer = Self {
            pages: raw.pages.get(),
            state: raw.state.get(),
            pages_crc: raw.pages_crc.get(),
            state_crc: raw.state_crc.get(),
        };
        let end = trailer.pages.checked_add(trailer.state);
        let whole = end.and_then(|end| end.checked_add(TRAILER_BYTES as u64));
        let sound = raw.own_crc.get() == raw.checksum() && trailer.state <= MOST_STATE;
        match whole {
            Some(whole) if sound && whole == size => Ok(trailer),
            _ => Err(FileError::NoTrailer),
        }
    }
}

impl RawTrailer {
    fn checksum(&self) -> u32 {
        let checked = self.as_bytes().get(CHECKED_FROM..);
        crc32fast::hash(checked.unwrap_or_default())
    }
}

/// The state as bytes.
///
/// # Errors
/// [`FileError::TooLarge`] for more than a file may hold.
pub fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, FileError> {
    let bytes = postcard::to_stdvec(snapshot);
    let bytes = bytes.map_err(|error| FileError::Malformed(error.to_string()))?;
    if bytes.len() as u64 > MOST_STATE {
        return Err(FileError::TooLarge);
    }
    Ok(bytes)
}

/// The state from its bytes.
///
/// # Errors
/// [`FileError`] for a wrong checksum or bytes that are no state.
pub fn decode(trailer: &Trailer, bytes: &[u8]) -> Result<Snapshot, FileError> {
    if crc32fast::hash(bytes) != trailer.state_crc {
        return Err(FileError::State);
    }
    let (snapshot, rest) = postcard::take_from_bytes(bytes)
        .map_err(|error| FileError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(FileError::Malformed("bytes follow".into()));
    }
    Ok(snapshot)
}
