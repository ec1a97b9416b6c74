//! What a monitor that is ready for any snapshot waits for.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Deserialize;
use vmm_abi::PAGE_SIZE;

use crate::snapshot::SnapshotError;

/// Longest message: a digest, and two thousand pairs of numbers.
const MOST_BYTES: usize = 64 << 10;
/// Longest message that says nothing.
const MOST_EMPTY_BYTES: usize = 16;
/// Most pages of each kind that anything is done for.
const MOST_PAGES: u64 = 4096;
/// Pages that KVM maps at once where all of them are the process's own.
const MAPPED_AT_ONCE: u64 = 8;

/// The snapshot to bring back.
pub struct Ordered {
    pub file: OwnedFd,
    pub key: String,
    pub hints: Hints,
    /// What the guest is to have at 3.
    pub stream: Stream,
}

pub enum Stream {
    None,
    Here(OwnedFd),
    /// It comes with a second message, [`wait_for_stream`]: until then all is done that needs no stream.
    Later,
}

/// What is known of the guest's first answer. Pages are counted from address 0, the first and how many each; nothing but speed depends on them.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hints {
    /// Pages that it writes.
    written: Pages,
    /// Pages that it only reads.
    read: Pages,
    /// Nothing is known yet: what the guest touches is to be noted, until that is asked for.
    watch: bool,
}

type Pages = Vec<(u64, u64)>;
/// A message, and the descriptors that came with it.
type Received = (Vec<u8>, Vec<OwnedFd>);

impl Hints {
    /// Those that are written, as far as they are taken seriously.
    pub fn written(&self) -> Pages {
        bounded(&self.written)
    }

    pub fn watch(&self) -> bool {
        self.watch
    }

    /// Addresses to touch so that KVM has mapped all pages, once those that are written have been made the process's own.
    pub fn touched(&self) -> Vec<u64> {
        let all = |(first, count): &(u64, u64)| *first..first.saturating_add(*count);
        let mut groups: Pages = Vec::new();
        for (first, count) in self.written() {
            let last = first.saturating_add(count).saturating_sub(1);
            groups.push((first, 1));
            let next = (first / MAPPED_AT_ONCE).saturating_add(1);
            for group in next..=last / MAPPED_AT_ONCE {
                groups.push((group.saturating_mul(MAPPED_AT_ONCE), 1));
            }
        }
        groups.extend(bounded(&self.read));
        let pages = groups.iter().flat_map(all);
        pages.map(|page| page.saturating_mul(PAGE_SIZE)).collect()
    }
}

/// The first of the pages.
fn bounded(pages: &Pages) -> Pages {
    let mut left = MOST_PAGES;
    let mut taken = Pages::new();
    for (first, count) in pages {
        let count = (*count).min(left);
        if count > 0 {
            taken.push((*first, count));
        }
        left = left.saturating_sub(count);
    }
    taken
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    key: String,
    #[serde(default)]
    hints: Hints,
    #[serde(default)]
    later: bool,
}

/// Waits for one message on the control socket: `{"key", "hints", "later"}`, and with it (SCM_RIGHTS, unix(7)) the snapshot's file and what the guest is to have
/// at 3, which may be left out, or come later. `None` when the other end was closed. `rest` is called if it is not there yet.
///
/// # Errors
/// [`SnapshotError::Host`] for what is no such message.
pub fn wait(control: &OwnedFd, rest: impl FnOnce()) -> Result<Option<Ordered>, SnapshotError> {
    let Some((text, files)) = receive(control, MOST_BYTES, rest)? else {
        return Ok(None);
    };
    let mut files = files.into_iter();
    let file = files.next().ok_or_else(|| wrong("no file came with it"))?;
    let message: Message =
        serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string()))?;
    Ok(Some(Ordered {
        file,
        key: message.key,
        hints: message.hints,
        stream: match files.next() {
            _ if message.later => Stream::Later,
            Some(stream) => Stream::Here(stream),
            None => Stream::None,
        },
    }))
}

/// Waits for what the guest is to have at 3, which comes with a message of one byte. `None` when the other end was closed. `rest` is called if it is not there yet.
///
/// # Errors
/// As [`wait`].
pub fn wait_for_stream(
    control: &OwnedFd,
    rest: impl FnOnce(),
) -> Result<Option<OwnedFd>, SnapshotError> {
    let Some((_, files)) = receive(control, MOST_EMPTY_BYTES, rest)? else {
        return Ok(None);
    };
    let stream = files.into_iter().next();
    stream
        .map(Some)
        .ok_or_else(|| wrong("no stream came with it"))
}

fn wrong(what: &str) -> SnapshotError {
    let error = io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    SnapshotError::Host("the order", error)
}

/// One message, and what came with it. Two that follow each other are not read as one, because each has a descriptor.
fn receive(
    control: &OwnedFd,
    most: usize,
    rest: impl FnOnce(),
) -> Result<Option<Received>, SnapshotError> {
    let mut text = vec![0u8; most];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut rest = Some(rest);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, rest.is_some());
        match recvmsg(control, &mut parts, &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if rest.is_some() => {
                rest.take().into_iter().for_each(|rest| rest());
            }
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
    let files = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .collect();
    text.truncate(received.bytes);
    Ok(Some((text, files)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use super::*;

    #[test]
    fn of_pages_that_are_mapped_at_once_one_is_touched_and_their_number_is_bounded() {
        let hints = |text: &str| serde_json::from_str::<Hints>(text).unwrap();
        let pages = |hints: &Hints| -> Vec<u64> {
            let touched = hints.touched();
            touched.iter().map(|at| at / PAGE_SIZE).collect()
        };
        let some = hints(r#"{"written": [[6, 12], [24, 1]], "read": [[40, 3]]}"#);
        assert_eq!(pages(&some), [6, 8, 16, 24, 40, 41, 42]);
        let many = hints(
            r#"{"written": [[0, 18446744073709551615]], "read": [[5, 18446744073709551615]]}"#,
        );
        assert_eq!(
            pages(&many).len() as u64,
            MOST_PAGES / MAPPED_AT_ONCE + MOST_PAGES
        );
        assert!(hints("{}").touched().is_empty());
        assert!(serde_json::from_str::<Hints>(r#"{"more": 1}"#).is_err());
    }
}
