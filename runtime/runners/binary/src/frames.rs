//! The frames of runtime/protocol/README.md as a runner sees them.

use std::io::{self, Read, Write};

use serde::Serialize;

/// Largest payload of any frame.
pub const MAX_PAYLOAD_BYTES: usize = 262_144;
/// Largest DATA payload, and largest LOG payload.
pub const MAX_DATA_BYTES: usize = 65_536;
/// Bytes of DATA each side of a stream may send before it is granted more.
pub const WINDOW_BYTES: usize = 262_144;

const HEADER_BYTES: usize = 12;
const READ_BYTES: usize = 65_536;

/// What kind of frame it is; only those a runner sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    Init = 0x01,
    Invoke = 0x02,
    Data = 0x03,
    End = 0x04,
    Cancel = 0x05,
    Window = 0x06,
    Restored = 0x07,
    Ready = 0x10,
    InitDone = 0x11,
    Head = 0x12,
    Error = 0x13,
    Log = 0x14,
}

impl FrameType {
    fn incoming(value: u8) -> Option<Self> {
        Some(match value {
            0x01 => Self::Init,
            0x02 => Self::Invoke,
            0x03 => Self::Data,
            0x04 => Self::End,
            0x05 => Self::Cancel,
            0x06 => Self::Window,
            0x07 => Self::Restored,
            _ => return None,
        })
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: FrameType,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Cuts a byte stream into frames.
#[derive(Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    consumed: usize,
}

impl FrameReader {
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

    /// The next whole frame, if one is there. The error says what is wrong with the bytes.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let rest = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, z0, z1, z2] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD_BYTES {
            return Err(format!("a frame of {length} bytes is over the limit"));
        }
        if [z0, z1, z2] != [0, 0, 0] {
            return Err("a reserved header byte is not zero".into());
        }
        let Some(kind) = FrameType::incoming(kind) else {
            return Err(format!("frame type 0x{kind:02x} is none a runner takes"));
        };
        let Some(payload) = body.get(..length) else {
            return Ok(None);
        };
        let frame = Frame {
            kind,
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
            payload: payload.to_vec(),
        };
        self.consumed = self
            .consumed
            .saturating_add(HEADER_BYTES)
            .saturating_add(length);
        Ok(Some(frame))
    }
}

/// Sends frames; each leaves in one write.
pub struct FrameWriter<W> {
    sink: W,
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            buffer: Vec::new(),
        }
    }

    /// Sends one frame. `payload` is at most MAX_PAYLOAD_BYTES.
    pub fn send(&mut self, kind: FrameType, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length as usize <= MAX_PAYLOAD_BYTES)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&stream.to_le_bytes());
        self.buffer.extend_from_slice(&[kind as u8, 0, 0, 0]);
        self.buffer.extend_from_slice(payload);
        self.sink.write_all(&self.buffer)
    }

    /// Sends one frame with a JSON payload.
    pub fn send_json(
        &mut self,
        kind: FrameType,
        stream: u32,
        value: &impl Serialize,
    ) -> io::Result<()> {
        self.send(kind, stream, &serde_json::to_vec(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader {
        FrameReader {
            buffer: bytes.to_vec(),
            consumed: 0,
        }
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
    fn bad_headers_are_refused_before_their_payload_is_awaited() {
        for header in [
            [1, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 1, 0],
            [0, 0, 0, 0, 1, 0, 0, 0, 0x20, 0, 0, 0],
        ] {
            assert!(reader(&header).next_frame().is_err());
        }
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.send(FrameType::Data, 9, b"xyz").unwrap();
        let frame = reader(&writer.sink).next_frame().unwrap().unwrap();
        assert_eq!((frame.stream, frame.payload.as_slice()), (9, &b"xyz"[..]));
        let too_long = vec![0; MAX_PAYLOAD_BYTES + 1];
        assert!(writer.send(FrameType::Data, 9, &too_long).is_err());
    }
}
