//! The frames of runtime/protocol/README.md: a 12-byte header and a payload of at most 256 KiB.
//!
//! [`FrameReader`] cuts a stream into frames and reads ahead; [`ExactReader`] never takes a byte beyond the frame it is in,
//! for sockets that are handed to another process between two frames.

mod exact;
mod header;
mod reader;
mod writer;

pub use exact::{ExactReader, Progress, ReadError};
pub use header::{FrameError, FrameType, HEADER_BYTES, Header};
pub use reader::FrameReader;
pub use writer::{FrameWriter, encode, encode_json};

/// Largest payload of any frame.
pub const MAX_PAYLOAD_BYTES: usize = 262_144;
/// Largest DATA payload, and largest LOG payload.
pub const MAX_DATA_BYTES: usize = 65_536;
/// Bytes of DATA each side of a stream may send before it is granted more.
pub const WINDOW_BYTES: usize = 262_144;

/// A received frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameType,
    pub stream: u32,
    pub payload: Vec<u8>,
}
