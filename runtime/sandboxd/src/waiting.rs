//! Micro-VMs that have been made and wait for the snapshot to be brought back in them.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use crate::refusal::{Code, Refusal};
use crate::reset::Resetter;
use crate::snapshots::{Shape, Snapshot, Snapshots};

/// The way to a monitor that waits.
#[derive(Debug)]
pub struct Waiting {
    shape: Shape,
    control: UnixStream,
}

impl Waiting {
    /// It, and the monitor's end of the socket.
    pub fn new(shape: Shape) -> io::Result<(Self, OwnedFd)> {
        let (control, theirs) = UnixStream::pair()?;
        Ok((Self { shape, control }, OwnedFd::from(theirs)))
    }

    /// What asks it for resets, once it has brought something back.
    pub fn resetter(&self) -> io::Result<Resetter> {
        self.control.try_clone().map(Resetter::by)
    }

    /// What is to be brought back in it for that function, found.
    pub fn order(
        &self,
        snapshots: &Snapshots,
        id: &str,
        bundle: &str,
    ) -> Result<RestoreOrder, Refusal> {
        let snapshot = snapshots.get(id, &self.shape, Some(bundle))?;
        let control = self.control.try_clone().map_err(failed)?;
        Ok(RestoreOrder { control, snapshot })
    }
}

/// A snapshot on its way to the monitor that waits for it.
#[derive(Debug)]
pub struct RestoreOrder {
    control: UnixStream,
    snapshot: Arc<Snapshot>,
}

impl RestoreOrder {
    /// Hands the file over; whether it could be brought back shows in the sandbox.
    pub fn send(&self) -> Result<(), Refusal> {
        let text = json!({"key": self.snapshot.key()}).to_string();
        let file: &File = self.snapshot.file();
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&files));
        let parts = [IoSlice::new(text.as_bytes())];
        // The socket is empty, and takes so little at once.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.control, &parts, &mut rights, flags) {
            Ok(count) if count == text.len() => Ok(()),
            Ok(_) => Err(failed("it was sent in part")),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::SetupFailed,
        format!("The snapshot could not be given to the micro-VM: {error}."),
        "Ask for another sandbox.",
    )
}
