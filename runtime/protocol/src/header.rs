use crate::MAX_PAYLOAD_BYTES;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 12;

/// What bytes cannot be a frame. The messages never hold bytes of a payload.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a reserved header byte is not zero")]
    Reserved,
    #[error("frame type 0x{0:02x} is not one that is taken here")]
    Type(u8),
    #[error("a payload cannot be written as JSON")]
    Json,
}

/// What kind of frame it is; the table of README.md, "Frame types".
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
    Recall = 0x08,
    Ready = 0x10,
    InitDone = 0x11,
    Head = 0x12,
    Error = 0x13,
    Log = 0x14,
    Request = 0x20,
    Reply = 0x21,
    Event = 0x22,
}

impl FrameType {
    /// None for a byte that names no type.
    pub const fn from_byte(value: u8) -> Option<Self> {
        Some(match value {
            0x01 => Self::Init,
            0x02 => Self::Invoke,
            0x03 => Self::Data,
            0x04 => Self::End,
            0x05 => Self::Cancel,
            0x06 => Self::Window,
            0x07 => Self::Restored,
            0x08 => Self::Recall,
            0x10 => Self::Ready,
            0x11 => Self::InitDone,
            0x12 => Self::Head,
            0x13 => Self::Error,
            0x14 => Self::Log,
            0x20 => Self::Request,
            0x21 => Self::Reply,
            0x22 => Self::Event,
            _ => return None,
        })
    }

    /// Whether a runner takes such frames.
    pub const fn is_for_runner(self) -> bool {
        matches!(
            self,
            Self::Init
                | Self::Invoke
                | Self::Data
                | Self::End
                | Self::Cancel
                | Self::Window
                | Self::Restored
                | Self::Recall
        )
    }
}

/// The first 12 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes; at most MAX_PAYLOAD_BYTES.
    pub length: usize,
    pub stream: u32,
    pub kind: FrameType,
}

impl Header {
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, z0, z1, z2] = *bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD_BYTES {
            return Err(FrameError::TooLong {
                length,
                limit: MAX_PAYLOAD_BYTES,
            });
        }
        if [z0, z1, z2] != [0, 0, 0] {
            return Err(FrameError::Reserved);
        }
        Ok(Self {
            length,
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
            kind: FrameType::from_byte(kind).ok_or(FrameError::Type(kind))?,
        })
    }

    /// Fails when the length is over the limit.
    pub fn encode(&self) -> Result<[u8; HEADER_BYTES], FrameError> {
        let length = u32::try_from(self.length)
            .ok()
            .filter(|_| self.length <= MAX_PAYLOAD_BYTES)
            .ok_or(FrameError::TooLong {
                length: self.length,
                limit: MAX_PAYLOAD_BYTES,
            })?;
        let [l0, l1, l2, l3] = length.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.to_le_bytes();
        Ok([l0, l1, l2, l3, s0, s1, s2, s3, self.kind as u8, 0, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_the_byte_it_says() {
        let known = (0..=u8::MAX).filter_map(|byte| Some((byte, FrameType::from_byte(byte)?)));
        let bytes: Vec<u8> = known
            .inspect(|(byte, kind)| assert_eq!(*byte, *kind as u8))
            .map(|(byte, _)| byte)
            .collect();
        assert_eq!(
            bytes,
            [
                1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13, 0x14, 0x20, 0x21, 0x22
            ]
        );
    }

    #[test]
    fn headers_come_back_and_bad_ones_do_not() {
        let header = Header {
            length: 262_144,
            stream: 0x0403_0201,
            kind: FrameType::Reply,
        };
        let bytes = header.encode().unwrap();
        assert_eq!(bytes, [0, 0, 4, 0, 1, 2, 3, 4, 0x21, 0, 0, 0]);
        assert_eq!(Header::decode(&bytes), Ok(header));
        let over = Header {
            length: 262_145,
            ..header
        };
        assert!(over.encode().is_err());
        assert!(Header::decode(&[1, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0]).is_err());
        assert_eq!(
            Header::decode(&[0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 1]),
            Err(FrameError::Reserved)
        );
        assert_eq!(
            Header::decode(&[0, 0, 0, 0, 1, 0, 0, 0, 0x23, 0, 0, 0]),
            Err(FrameError::Type(0x23))
        );
    }
}
