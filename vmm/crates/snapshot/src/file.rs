//! The file of a snapshot: pages first, then the state, then a trailer of fixed size at the very end.

use std::fmt;

use crate::Snapshot;

/// Which layout of state and file this is. A file of another is refused.
pub const FORMAT: u32 = 1;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"cloistvm";
/// Most bytes a state may have: 100,000 mappings and as many files.
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
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrailer => f.write_str("it is cut short or no snapshot"),
            Self::Format(format) => write!(f, "it has format {format}, not {FORMAT}"),
            Self::State => f.write_str("its state is damaged"),
            Self::Pages => f.write_str("its pages are damaged"),
            Self::Malformed(what) => write!(f, "its state is malformed: {what}"),
        }
    }
}

impl std::error::Error for FileError {}

/// The last [`TRAILER_BYTES`] of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of pages, which is where the state begins.
    pub pages: u64,
    pub state: u64,
    /// CRC-32 of all pages.
    pub pages_crc: u32,
    pub state_crc: u32,
}

impl Trailer {
    /// As bytes: magic, format, CRC of the trailer itself, then the fields, little endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TRAILER_BYTES] {
        let mut fields = Vec::with_capacity(TRAILER_BYTES);
        fields.extend_from_slice(&self.pages.to_le_bytes());
        fields.extend_from_slice(&self.state.to_le_bytes());
        fields.extend_from_slice(&self.pages_crc.to_le_bytes());
        fields.extend_from_slice(&self.state_crc.to_le_bytes());
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&fields).to_le_bytes());
        bytes.extend_from_slice(&fields);
        bytes.resize(TRAILER_BYTES, 0);
        let mut whole = [0; TRAILER_BYTES];
        whole.copy_from_slice(&bytes);
        whole
    }

    /// Reads the end of a file that has `size` bytes.
    ///
    /// # Errors
    /// [`FileError`] for what is no trailer, or does not fit the size.
    pub fn from_bytes(bytes: &[u8; TRAILER_BYTES], size: u64) -> Result<Self, FileError> {
        let word = |at: usize| {
            let end = at.checked_add(4)?;
            Some(u32::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
        };
        let long = |at: usize| {
            let end = at.checked_add(8)?;
            Some(u64::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
        };
        let part = |from: usize, to: usize| bytes.get(from..to).ok_or(FileError::NoTrailer);
        if part(0, 8)? != MAGIC {
            return Err(FileError::NoTrailer);
        }
        let format = word(8).ok_or(FileError::NoTrailer)?;
        if format != FORMAT {
            return Err(FileError::Format(format));
        }
        let read = || {
            let trailer = Self {
                pages: long(16)?,
                state: long(24)?,
                pages_crc: word(32)?,
                state_crc: word(36)?,
            };
            let end = trailer.pages.checked_add(trailer.state)?;
            let fits =
                end.checked_add(TRAILER_BYTES as u64)? == size && trailer.state <= MOST_STATE;
            (fits && word(12)? == crc32fast::hash(bytes.get(16..40)?)).then_some(trailer)
        };
        read().ok_or(FileError::NoTrailer)
    }
}

/// The state as bytes.
///
/// # Errors
/// [`FileError::Malformed`] for what cannot be written.
pub fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, FileError> {
    postcard::to_stdvec(snapshot).map_err(|error| FileError::Malformed(error.to_string()))
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]
mod tests {
    use super::*;
    use vmm_memory::MemoryState;

    use crate::{MachineId, ProcessState};

    fn snapshot() -> Snapshot {
        Snapshot {
            machine: MachineId {
                processor: "p".into(),
                monitor: "m".into(),
                boot: "b".into(),
            },
            key: "k".into(),
            memory: MemoryState {
                heap: (1, 2),
                ..MemoryState::default()
            },
            process: ProcessState {
                umask: 0o22,
                cwd: b"/".to_vec(),
                ..ProcessState::default()
            },
        }
    }

    fn file() -> (Vec<u8>, Trailer, [u8; TRAILER_BYTES]) {
        let bytes = encode(&snapshot()).unwrap();
        let trailer = Trailer {
            pages: 8192,
            state: bytes.len() as u64,
            pages_crc: 7,
            state_crc: crc32fast::hash(&bytes),
        };
        (bytes, trailer, trailer.to_bytes())
    }

    fn size(trailer: &Trailer) -> u64 {
        trailer.pages + trailer.state + TRAILER_BYTES as u64
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, trailer, end) = file();
        assert_eq!(Trailer::from_bytes(&end, size(&trailer)), Ok(trailer));
        assert_eq!(decode(&trailer, &bytes), Ok(snapshot()));
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_found() {
        let (bytes, trailer, end) = file();
        for at in 0..TRAILER_BYTES * 8 {
            let mut wrong = end;
            wrong[at / 8] ^= 1 << (at % 8);
            let read = Trailer::from_bytes(&wrong, size(&trailer));
            // The last eight bytes are filling.
            assert_eq!(read.is_err(), at / 8 < 40, "bit {at}");
        }
        for at in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&trailer, &wrong), Err(FileError::State), "bit {at}");
        }
        for less in 1..100 {
            assert_eq!(
                Trailer::from_bytes(&end, size(&trailer) - less),
                Err(FileError::NoTrailer)
            );
        }
        let mut other = end;
        other[8] = 9;
        assert_eq!(
            Trailer::from_bytes(&other, size(&trailer)),
            Err(FileError::Format(9))
        );
    }

    /// The layout is pinned: whoever changes a type changes this, and [`FORMAT`].
    #[test]
    fn the_format_is_what_it_was() {
        assert_eq!(FORMAT, 1);
        let expected = [1, 112, 1, 109, 1, 98, 1, 107, 0, 1, 2];
        assert_eq!(encode(&snapshot()).unwrap()[..expected.len()], expected);
    }
}
