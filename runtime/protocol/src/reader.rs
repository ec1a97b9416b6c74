use std::io::{self, Read};

use crate::{Frame, FrameError, FrameType, HEADER_BYTES, Header};

const READ_BYTES: usize = 65_536;

/// Cuts a byte stream into frames; reads as much as there is.
pub struct FrameReader {
    buffer: Vec<u8>,
    consumed: usize,
    takes: fn(FrameType) -> bool,
}

impl FrameReader {
    /// `takes` tells which types may come; any other is an error before its payload is awaited.
    pub fn new(takes: fn(FrameType) -> bool) -> Self {
        Self {
            buffer: Vec::new(),
            consumed: 0,
            takes,
        }
    }

    /// Reads once from `source`. Gives false at end of file.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<bool> {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let held = self.buffer.len();
        self.buffer.resize(held.saturating_add(READ_BYTES), 0);
        let got = match self.buffer.get_mut(held..) {
            Some(space) => source.read(space),
            None => Ok(0),
        };
        self.buffer
            .truncate(held.saturating_add(*got.as_ref().unwrap_or(&0)));
        got.map(|bytes| bytes > 0)
    }

    /// The next whole frame, if one is there. After an error the stream means nothing any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let Header {
            length,
            stream,
            kind,
        } = Header::decode(header)?;
        if !(self.takes)(kind) {
            return Err(FrameError::Type(kind as u8));
        }
        let Some(payload) = body.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.consumed = self
            .consumed
            .saturating_add(HEADER_BYTES)
            .saturating_add(length);
        Ok(Some(Frame {
            kind,
            stream,
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader {
        let mut reader = FrameReader::new(FrameType::is_for_runner);
        reader.buffer.extend_from_slice(bytes);
        reader
    }

    #[test]
    fn a_frame_split_anywhere_is_read_once_whole() {
        let whole = [3, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', b'c'];
        for cut in 0..whole.len() {
            let mut frames = reader(&whole[..cut]);
            assert!(frames.next_frame().unwrap().is_none());
            assert!(frames.fill(&mut &whole[cut..]).unwrap());
            let frame = frames.next_frame().unwrap().unwrap();
            assert_eq!((frame.kind, frame.stream), (FrameType::Data, 7));
            assert_eq!(frame.payload, b"abc");
            assert!(frames.next_frame().unwrap().is_none());
        }
    }

    #[test]
    fn any_bytes_in_any_pieces_are_frames_or_refused() {
        use std::time::{SystemTime, UNIX_EPOCH};
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let given = std::env::var("CLOISTER_FUZZ_SEED").ok();
        let given = given.and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| clock().as_nanos() as u64);
        // Shown when the test fails.
        println!("CLOISTER_FUZZ_SEED={seed}");
        let mut state = seed | 1;
        let mut random = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let mut read = 0;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..random(6) {
                // Small lengths and kinds are likely to be right, each byte may be wrong.
                let len = random(20);
                let mut header = [
                    len as u8,
                    0,
                    0,
                    0,
                    random(4) as u8,
                    0,
                    0,
                    0,
                    random(12) as u8,
                    0,
                    0,
                    0,
                ];
                if random(6) == 0 {
                    header[random(12) as usize] = random(256) as u8;
                }
                bytes.extend(header);
                bytes.extend((0..len).map(|_| random(256) as u8));
            }
            let mut frames = reader(&[]);
            let mut rest = bytes.as_slice();
            let mut payloads = 0;
            'pieces: while !rest.is_empty() {
                let (piece, later) = rest.split_at(random(rest.len() as u64) as usize + 1);
                rest = later;
                assert!(frames.fill(&mut &*piece).unwrap());
                loop {
                    match frames.next_frame() {
                        Ok(Some(frame)) => {
                            read += 1;
                            payloads += frame.payload.len() + 12;
                        }
                        Ok(None) => break,
                        Err(_) => break 'pieces,
                    }
                }
            }
            assert!(payloads <= bytes.len());
        }
        assert!(read > 1000);
    }

    #[test]
    fn bad_headers_are_refused_before_their_payload_is_awaited() {
        for header in [
            [1, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0],
            [9, 0, 0, 0, 1, 0, 0, 0, 3, 0, 1, 0],
            [9, 0, 0, 0, 1, 0, 0, 0, 0x20, 0, 0, 0],
        ] {
            assert!(reader(&header).next_frame().is_err());
        }
    }
}
