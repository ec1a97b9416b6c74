//! What a monitor that is ready for any snapshot waits for.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Deserialize;

use crate::snapshot::SnapshotError;

/// Longest message: a digest, and some hundred pairs of numbers.
const MOST_BYTES: usize = 32 << 10;

/// The snapshot to bring back.
pub struct Ordered {
    pub file: OwnedFd,
    pub key: String,
    /// Pages of the file that are likely to be written soon: the first, and how many.
    pub written: Vec<(u64, u64)>,
    /// What the guest is to have at 3.
    pub stream: Option<OwnedFd>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    key: String,
    #[serde(default)]
    written: Vec<(u64, u64)>,
}

/// Waits for one message on the control socket: `{"key", "written"}`, and with it (SCM_RIGHTS, unix(7)) the snapshot's file and what the guest is to have at 3, which may be left out. `None` when the other end was
/// closed.
///
/// # Errors
/// [`SnapshotError::Host`] for what is no such message.
pub fn wait(control: &OwnedFd) -> Result<Option<Ordered>, SnapshotError> {
    let wrong = |what: &str| {
        let error = io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        SnapshotError::Host("the order", error)
    };
    let mut text = vec![0u8; MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(control, &mut parts, &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(|e| SnapshotError::Host("the order", e.into()))?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(wrong("it is too long"));
    }
    let mut files = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten();
    let file = files.next().ok_or_else(|| wrong("no file came with it"))?;
    let message: Message = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())
        .map_err(|error| wrong(&error.to_string()))?;
    Ok(Some(Ordered {
        file,
        key: message.key,
        written: message.written,
        stream: files.next(),
    }))
}
