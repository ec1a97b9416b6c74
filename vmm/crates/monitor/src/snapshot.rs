//! Writing a guest that stands still to a file, and reading it.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{fstat, ftruncate};
use rustix::io::{pread, pwritev, readv};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use serde_json::json;
use vmm_abi::{Errno, PAGE_SIZE};
use vmm_hypervisor::{HostFacts, HypervisorError, Machine};
use vmm_kernel::loader::GuestClock;
use vmm_kernel::{CaptureError, Kernel, RestoreError, StillError};
use vmm_memory::{Extent, MemoryState, PageMap, PageStore};
use vmm_snapshot::{FileError, MachineId, Snapshot, TRAILER_BYTES, Trailer, decode, encode};

/// Bytes that are read at once for the checksum.
const PIECE: usize = 1 << 20;

/// Why there is no snapshot, or none that can be used.
#[derive(Debug)]
pub enum SnapshotError {
    Still(StillError),
    Capture(CaptureError),
    Restore(RestoreError),
    Machine(HypervisorError),
    File(FileError),
    /// It is of something else: what, there, here.
    Differs(&'static str, String, String),
    Host(&'static str, io::Error),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Still(error) => error.fmt(f),
            Self::Capture(error) => error.fmt(f),
            Self::Restore(error) => write!(f, "the snapshot cannot be brought back: {error}"),
            Self::Machine(error) => error.fmt(f),
            Self::File(error) => write!(f, "the snapshot cannot be used: {error}"),
            Self::Differs(what, there, here) => write!(
                f,
                "the snapshot is of another {what}: {there}, not {here}. Make it anew"
            ),
            Self::Host(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// What a snapshot made or brought back here is tied to. To be asked before the monitor is confined.
///
/// # Errors
/// Where no facts tell the boot, and /proc does not either.
pub fn machine_id(facts: Option<&HostFacts>) -> Result<MachineId, SnapshotError> {
    let told = facts.and_then(|facts| facts.boot.clone());
    let boot = told.map_or_else(vmm_hypervisor::boot_id, Ok);
    let boot = boot.map_err(|error| SnapshotError::Host("the id of the boot", error))?;
    let image = crc32fast::hash(GuestClock::image());
    Ok(MachineId {
        processor: facts.map_or_else(vmm_hypervisor::processor_id, |facts| {
            facts.processor.clone()
        }),
        monitor: format!("{} {image:08x}", env!("CARGO_PKG_VERSION")),
        boot,
    })
}

/// What is needed to write a snapshot, opened before the monitor is confined.
pub struct Writer {
    pub control: OwnedFd,
    pub file: OwnedFd,
    pub key: String,
    pub machine: MachineId,
    pub pages: PageMap,
}

impl Writer {
    /// Waits in a thread of its own for a byte on the control socket; then writes the guest down, answers
    /// `{"ok": true, "bytes", "pageBytes", "stillMs", "writeMs"}` or `{"ok": false, "reason"}`, and ends the process.
    ///
    /// # Errors
    /// What the host says when it gives no thread.
    pub fn start(self, kernel: Arc<Kernel>, machine: Arc<Machine>) -> io::Result<()> {
        let builder = std::thread::Builder::new().name("snapshot".into());
        builder.spawn(move || self.wait_and_write(&kernel, &machine))?;
        Ok(())
    }

    fn wait_and_write(&self, kernel: &Kernel, machine: &Machine) {
        let mut byte = [0];
        match readv(&self.control, &mut [IoSliceMut::new(&mut byte)]) {
            Ok(1) => {}
            // Nobody wants a snapshot any more.
            _ => return,
        }
        let (answer, code) = match self.write(kernel, machine) {
            Ok(answer) => (answer, 0),
            Err(error) => (json!({"ok": false, "reason": error.to_string()}), 125),
        };
        let text = answer.to_string();
        let sent = sendmsg(
            &self.control,
            &[IoSlice::new(text.as_bytes())],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        );
        // Whoever asked has gone; the file says by its trailer whether it is whole.
        let _ = sent;
        std::process::exit(code);
    }

    fn write(
        &self,
        kernel: &Kernel,
        machine: &Machine,
    ) -> Result<serde_json::Value, SnapshotError> {
        let began = Instant::now();
        let threads = kernel.stand_still().map_err(SnapshotError::Still)?;
        let still = began.elapsed();
        let mut store = Store {
            file: &self.file,
            end: 0,
        };
        let (memory, process) = kernel
            .capture(threads, &self.pages, &mut store)
            .map_err(SnapshotError::Capture)?;
        let system = write_system_pages(machine, &memory, &mut store)?;
        let pages = store.end;
        let snapshot = Snapshot {
            machine: self.machine.clone(),
            key: self.key.clone(),
            memory,
            system,
            process,
        };
        let state = encode(&snapshot).map_err(SnapshotError::File)?;
        ftruncate(&self.file, pages)
            .map_err(|e| SnapshotError::Host("the snapshot's file", e.into()))?;
        let trailer = Trailer {
            pages,
            state: state.len() as u64,
            pages_crc: checksum(&self.file, pages)?,
            state_crc: crc32fast::hash(&state),
        };
        store
            .write(pages, &state)
            .map_err(host("writing the state"))?;
        let end = pages.saturating_add(trailer.state);
        store
            .write(end, &trailer.to_bytes())
            .map_err(host("writing the trailer"))?;
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        Ok(json!({
            "ok": true,
            "bytes": end.saturating_add(TRAILER_BYTES as u64),
            "pageBytes": pages,
            "stillMs": ms(still),
            "writeMs": ms(began.elapsed().saturating_sub(still)),
        }))
    }
}

/// A failure of the host's.
fn host(what: &'static str) -> impl Fn(Errno) -> SnapshotError {
    move |errno| SnapshotError::Host(what, io::Error::from_raw_os_error(errno.0))
}

/// Writes down the pages that a machine will have which brings that memory back; where they are.
fn write_system_pages(
    machine: &Machine,
    memory: &MemoryState,
    store: &mut Store<'_>,
) -> Result<Vec<Extent>, SnapshotError> {
    let parts = machine
        .likely_pages(&|mapper| memory.enter(mapper))
        .map_err(SnapshotError::Machine)?;
    let mut extents = Vec::new();
    for (at, bytes) in parts {
        let len = bytes.len() as u64;
        let offset = store
            .reserve(len, PAGE_SIZE, 0)
            .map_err(host("writing the machine's pages"))?;
        store
            .write(offset, &bytes)
            .map_err(host("writing the machine's pages"))?;
        extents.push(Extent { at, len, offset });
    }
    Ok(extents)
}

struct Store<'a> {
    file: &'a OwnedFd,
    end: u64,
}

impl PageStore for Store<'_> {
    fn reserve(&mut self, len: u64, align: u64, rest: u64) -> Result<u64, Errno> {
        let over = self.end.checked_rem(align).unwrap_or(0);
        let gap = if over <= rest {
            rest.saturating_sub(over)
        } else {
            align.saturating_sub(over).saturating_add(rest)
        };
        let offset = self.end.saturating_add(gap);
        self.end = offset.checked_add(len).ok_or(Errno::ENOSPC)?;
        Ok(offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0usize;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match pwritev(self.file, &[IoSlice::new(rest)], at) {
                Ok(0) => return Err(Errno::ENOSPC),
                Ok(count) => done = done.saturating_add(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Errno(error.raw_os_error())),
            }
        }
        Ok(())
    }
}

/// CRC-32 of the first bytes of a file.
fn checksum(file: &OwnedFd, len: u64) -> Result<u32, SnapshotError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0u64;
    while at < len {
        let wanted = usize::try_from(len.saturating_sub(at))
            .unwrap_or(PIECE)
            .min(PIECE);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let count = pread(file, &mut *part, at)
            .map_err(|e| SnapshotError::Host("reading the snapshot's file", e.into()))?;
        if count == 0 {
            return Err(SnapshotError::File(FileError::NoTrailer));
        }
        hasher.update(part.get(..count).unwrap_or_default());
        at = at.saturating_add(count as u64);
    }
    Ok(hasher.finalize())
}

/// Reads the state of a snapshot, and refuses one that is damaged or of something else. Its pages are not read:
/// [`verify_pages`] does that, once for many.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(file: &OwnedFd, key: &str, machine: &MachineId) -> Result<Snapshot, SnapshotError> {
    let failed =
        |e: rustix::io::Errno| SnapshotError::Host("reading the snapshot's file", e.into());
    let size = fstat(file).map_err(failed)?.st_size;
    let size = u64::try_from(size).unwrap_or(0);
    let trailer = trailer(file, size)?;
    let mut state = vec![0; usize::try_from(trailer.state).unwrap_or(0)];
    let count = pread(file, &mut state, trailer.pages).map_err(failed)?;
    state.truncate(count);
    let snapshot = decode(&trailer, &state).map_err(SnapshotError::File)?;
    let pairs = [
        ("processor", &snapshot.machine.processor, &machine.processor),
        ("monitor", &snapshot.machine.monitor, &machine.monitor),
        ("boot", &snapshot.machine.boot, &machine.boot),
    ];
    for (what, there, here) in pairs {
        if there != here {
            return Err(SnapshotError::Differs(what, there.clone(), here.clone()));
        }
    }
    if snapshot.key != key {
        return Err(SnapshotError::Differs(
            "function",
            snapshot.key,
            key.to_owned(),
        ));
    }
    Ok(snapshot)
}

fn trailer(file: &OwnedFd, size: u64) -> Result<Trailer, SnapshotError> {
    let wrong = SnapshotError::File(FileError::NoTrailer);
    let Some(at) = size.checked_sub(TRAILER_BYTES as u64) else {
        return Err(wrong);
    };
    let mut bytes = [0; TRAILER_BYTES];
    let count = pread(file, &mut bytes, at)
        .map_err(|e| SnapshotError::Host("reading the snapshot's file", e.into()))?;
    if count != TRAILER_BYTES {
        return Err(wrong);
    }
    let trailer = Trailer::from_bytes(&bytes, size).map_err(SnapshotError::File)?;
    if trailer.pages % PAGE_SIZE != 0 {
        return Err(wrong);
    }
    Ok(trailer)
}

/// Has a machine take pages from the snapshot that it holds itself, when what is in memory has been brought back and nothing of the guest has run.
/// How many pages that were.
///
/// # Errors
/// [`SnapshotError`] for pages that cannot be.
pub fn share_pages(
    machine: &Machine,
    file: &OwnedFd,
    snapshot: &Snapshot,
) -> Result<u64, SnapshotError> {
    machine
        .share_pages(file.as_fd(), &snapshot.system)
        .map_err(|errno| match errno {
            Errno::EINVAL => {
                let what = "pages of the machine that cannot be".into();
                SnapshotError::File(FileError::Malformed(what))
            }
            other => host("the snapshot's file")(other),
        })
}

/// Reads all pages of a snapshot and compares their checksum.
///
/// # Errors
/// [`SnapshotError`].
pub fn verify_pages(file: &OwnedFd) -> Result<(), SnapshotError> {
    let size = fstat(file).map_err(|e| SnapshotError::Host("the snapshot's file", e.into()))?;
    let trailer = trailer(file, u64::try_from(size.st_size).unwrap_or(0))?;
    if checksum(file, trailer.pages)? == trailer.pages_crc {
        Ok(())
    } else {
        Err(SnapshotError::File(FileError::Pages))
    }
}
