//! Receiving.

use std::sync::Arc;

use vmm_abi::{Errno, Iovec};
use vmm_memory::AddressSpace;

use super::address::{Address, UnixName};
use super::endpoint::{NO_MORE_IN, State};
use super::{Family, Kind, Socket};
use crate::file::OpenFile;

/// How to receive.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    /// Leave it there (MSG_PEEK).
    pub peek: bool,
}

/// What came.
#[derive(Default)]
pub struct Received {
    /// Bytes copied to the guest.
    pub count: usize,
    /// Bytes of the message, of which some may have found no room.
    pub len: usize,
    pub from: Option<Address>,
    pub files: Vec<Arc<OpenFile>>,
}

impl Socket {
    /// Receives into guest memory.
    ///
    /// # Errors
    /// EAGAIN when nothing is there yet, ENOTCONN, EFAULT, or an error that happened meanwhile.
    pub fn receive(
        &self,
        memory: &AddressSpace,
        to: &[Iovec],
        want: Want,
    ) -> Result<Received, Errno> {
        let wanted = to
            .iter()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.len));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if self.end.kind == Kind::Stream {
            self.receive_stream(memory, to, wanted, want)
        } else {
            self.receive_message(memory, to, wanted, want)
        }
    }

    /// What an empty queue means.
    fn nothing(&self, state: &mut State) -> Result<Received, Errno> {
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.shutdown & NO_MORE_IN != 0 {
            return Ok(Received::default());
        }
        if state.connected || self.end.kind == Kind::Datagram {
            return Err(Errno::EAGAIN);
        }
        let unix_stream = self.end.family == Family::Unix && self.end.kind == Kind::Stream;
        Err(if unix_stream {
            Errno::EINVAL
        } else {
            Errno::ENOTCONN
        })
    }

    fn receive_stream(
        &self,
        memory: &AddressSpace,
        to: &[Iovec],
        wanted: usize,
        want: Want,
    ) -> Result<Received, Errno> {
        let mut state = self.end.lock();
        if state.packets.is_empty() {
            if wanted == 0 && state.connected {
                return Ok(Received::default());
            }
            return self.nothing(&mut state);
        }
        let mut bytes = Vec::new();
        let mut with_rights = None;
        for (index, packet) in state.packets.iter().enumerate() {
            let left = wanted.saturating_sub(bytes.len());
            bytes.extend(packet.rest().iter().take(left));
            if !packet.rights.is_empty() && left > 0 {
                with_rights = Some(index);
            }
            // Descriptors of two messages never come together (unix(7)).
            if bytes.len() >= wanted || with_rights.is_some() {
                break;
            }
        }
        let count = memory.scatter(to, &bytes)?;
        let mut received = Received {
            count,
            len: count,
            from: self.stream_source(&state),
            files: Vec::new(),
        };
        let mut taken = None;
        if let Some(packet) = with_rights.and_then(|index| state.packets.get_mut(index)) {
            received.files = packet.rights.files().to_vec();
            if !want.peek {
                taken = Some(std::mem::take(&mut packet.rights));
            }
        }
        if want.peek {
            return Ok(received);
        }
        let done = self.end.consume(&mut state, count);
        drop(state);
        drop((done, taken));
        self.end.room_came();
        Ok(received)
    }

    /// A Unix stream shows the name of its peer, a TCP stream none.
    fn stream_source(&self, state: &State) -> Option<Address> {
        state
            .peer_name
            .clone()
            .filter(|name| matches!(name, Address::Unix(name) if *name != UnixName::Unnamed))
    }

    fn receive_message(
        &self,
        memory: &AddressSpace,
        to: &[Iovec],
        wanted: usize,
        want: Want,
    ) -> Result<Received, Errno> {
        let mut state = self.end.lock();
        if self.end.family != Family::Unix
            && let Some(error) = state.error.take()
        {
            return Err(error);
        }
        let Some(first) = state.packets.front() else {
            return self.nothing(&mut state);
        };
        let bytes = first.rest();
        let shown = bytes.get(..bytes.len().min(wanted)).unwrap_or_default();
        if memory.scatter(to, shown)? < shown.len() {
            return Err(Errno::EFAULT);
        }
        let received = Received {
            count: shown.len(),
            len: bytes.len(),
            from: first.from.clone(),
            files: first.rights.files().to_vec(),
        };
        if want.peek {
            return Ok(received);
        }
        let done = self.end.take_message(&mut state);
        drop(state);
        drop(done);
        self.end.room_came();
        Ok(received)
    }
}
