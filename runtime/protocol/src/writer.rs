use std::io::{self, Write};

use serde::Serialize;

use crate::{FrameError, FrameType, HEADER_BYTES, Header};

/// One frame as bytes. Fails when `payload` is longer than MAX_PAYLOAD_BYTES.
pub fn encode(kind: FrameType, stream: u32, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES.saturating_add(payload.len()));
    put(&mut bytes, kind, stream, payload)?;
    Ok(bytes)
}

/// One frame with a JSON payload as bytes.
pub fn encode_json(
    kind: FrameType,
    stream: u32,
    value: &impl Serialize,
) -> Result<Vec<u8>, FrameError> {
    let payload = serde_json::to_vec(value).map_err(|_| FrameError::Json)?;
    encode(kind, stream, &payload)
}

fn put(
    bytes: &mut Vec<u8>,
    kind: FrameType,
    stream: u32,
    payload: &[u8],
) -> Result<(), FrameError> {
    let header = Header {
        length: payload.len(),
        stream,
        kind,
    };
    bytes.extend_from_slice(&header.encode()?);
    bytes.extend_from_slice(payload);
    Ok(())
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
        self.buffer.clear();
        put(&mut self.buffer, kind, stream, payload)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
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
    use crate::{FrameReader, MAX_PAYLOAD_BYTES};

    #[test]
    fn what_is_sent_can_be_read() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.send(FrameType::Data, 9, b"xyz").unwrap();
        let mut reader = FrameReader::new(|_| true);
        reader.fill(&mut writer.sink.as_slice()).unwrap();
        let frame = reader.next_frame().unwrap().unwrap();
        assert_eq!((frame.stream, frame.payload.as_slice()), (9, &b"xyz"[..]));
        let too_long = vec![0; MAX_PAYLOAD_BYTES + 1];
        assert!(writer.send(FrameType::Data, 9, &too_long).is_err());
    }

    #[test]
    fn json_is_the_payload() {
        let bytes = encode_json(FrameType::Reply, 3, &serde_json::json!({"ok": true})).unwrap();
        assert_eq!(&bytes[..12], [11, 0, 0, 0, 3, 0, 0, 0, 0x21, 0, 0, 0]);
        assert_eq!(&bytes[12..], br#"{"ok":true}"#);
    }
}
