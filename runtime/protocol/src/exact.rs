use std::io::{self, Read};

use crate::{Frame, FrameError, FrameType, HEADER_BYTES, Header};

/// Payload memory grows with what has come, in such steps: a header alone costs nothing.
const STEP_BYTES: usize = 16_384;

/// What one look at the stream brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Frame(Frame),
    /// Nothing more to read now.
    Pending,
    /// End of file.
    Closed,
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames from a stream and never a byte beyond the frame it is in: what follows belongs to whoever reads next.
pub struct ExactReader {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    parsed: Option<Header>,
    payload: Vec<u8>,
    payload_bytes: usize,
    limit: usize,
    takes: fn(FrameType) -> bool,
}

impl ExactReader {
    /// `limit`: the longest payload taken, bytes. `takes`: which types may come.
    pub fn new(limit: usize, takes: fn(FrameType) -> bool) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            parsed: None,
            payload: Vec::new(),
            payload_bytes: 0,
            limit,
            takes,
        }
    }

    /// Whether a frame has begun and is not whole.
    pub fn partial(&self) -> bool {
        self.header_bytes > 0
    }

    /// Reads until one frame is whole or `source` has no more (`WouldBlock`). After an error the stream means nothing any more.
    pub fn read(&mut self, source: &mut impl Read) -> Result<Progress, ReadError> {
        loop {
            let Some(header) = self.parsed else {
                let space = self.header.get_mut(self.header_bytes..).unwrap_or_default();
                match taken(source.read(space))? {
                    None => return Ok(Progress::Pending),
                    Some(0) => return Ok(Progress::Closed),
                    Some(bytes) => self.header_bytes = self.header_bytes.saturating_add(bytes),
                }
                if self.header_bytes >= HEADER_BYTES {
                    self.parsed = Some(self.checked()?);
                }
                continue;
            };
            if self.payload_bytes >= header.length {
                let mut payload = std::mem::take(&mut self.payload);
                payload.truncate(header.length);
                (self.header_bytes, self.payload_bytes, self.parsed) = (0, 0, None);
                return Ok(Progress::Frame(Frame {
                    kind: header.kind,
                    stream: header.stream,
                    payload,
                }));
            }
            let wanted = header
                .length
                .min(self.payload_bytes.saturating_add(STEP_BYTES));
            self.payload.resize(wanted, 0);
            let space = self
                .payload
                .get_mut(self.payload_bytes..)
                .unwrap_or_default();
            match taken(source.read(space))? {
                None => return Ok(Progress::Pending),
                Some(0) => return Ok(Progress::Closed),
                Some(bytes) => self.payload_bytes = self.payload_bytes.saturating_add(bytes),
            }
        }
    }

    fn checked(&self) -> Result<Header, FrameError> {
        let header = Header::decode(&self.header)?;
        if header.length > self.limit {
            return Err(FrameError::TooLong {
                length: header.length,
                limit: self.limit,
            });
        }
        if !(self.takes)(header.kind) {
            return Err(FrameError::Type(header.kind as u8));
        }
        Ok(header)
    }
}

/// None when there is nothing now; an interrupted read is as if there were nothing, since the caller comes again.
fn taken(got: io::Result<usize>) -> io::Result<Option<usize>> {
    match got {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it holds in pieces of `piece` bytes, then says WouldBlock.
    struct Trickle<'a> {
        rest: &'a [u8],
        piece: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            if self.rest.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let bytes = self.piece.min(space.len()).min(self.rest.len());
            space[..bytes].copy_from_slice(&self.rest[..bytes]);
            self.rest = &self.rest[bytes..];
            Ok(bytes)
        }
    }

    #[test]
    fn takes_no_byte_beyond_the_frame() {
        let mut bytes = crate::encode(FrameType::Request, 1, &[7; 40_000]).unwrap();
        bytes.extend_from_slice(b"the runner's");
        for piece in [1, 11, 12, 13, 5000, usize::MAX] {
            let mut source = Trickle {
                rest: &bytes,
                piece,
            };
            let mut reader = ExactReader::new(65_536, |kind| kind == FrameType::Request);
            let Progress::Frame(frame) = reader.read(&mut source).unwrap() else {
                panic!("no frame");
            };
            assert_eq!((frame.stream, frame.payload.len()), (1, 40_000));
            assert_eq!(source.rest, b"the runner's");
            assert!(!reader.partial());
        }
    }

    #[test]
    fn half_a_frame_is_partial_and_its_end_is_told() {
        let bytes = crate::encode(FrameType::Request, 1, b"{}").unwrap();
        for cut in 1..bytes.len() {
            let mut reader = ExactReader::new(64, |_| true);
            let mut source = Trickle {
                rest: &bytes[..cut],
                piece: 64,
            };
            assert_eq!(reader.read(&mut source).unwrap(), Progress::Pending);
            assert!(reader.partial());
            assert_eq!(reader.read(&mut io::empty()).unwrap(), Progress::Closed);
        }
    }

    #[test]
    fn what_is_too_long_or_of_another_type_is_refused_by_its_header() {
        let mut reader = ExactReader::new(64, |kind| kind == FrameType::Request);
        let long = crate::encode(FrameType::Request, 1, &[0; 65]).unwrap();
        assert!(reader.read(&mut &long[..12]).is_err());
        let mut reader = ExactReader::new(64, |kind| kind == FrameType::Request);
        let other = crate::encode(FrameType::Data, 1, &[0; 9]).unwrap();
        assert!(reader.read(&mut &other[..12]).is_err());
    }
}
