//! Putting a guest that was brought back from a snapshot back to that snapshot, in the same process and virtual machine.
//!
//! Nothing of the guest's process is kept: its threads are ended, its kernel objects thrown away and made anew from the snapshot, its memory is put
//! back ([`vmm_memory::AddressSpace::reset`]). What cannot be shown to be as it was ends the micro-VM.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};
use serde::Deserialize;
use serde_json::{Value, json};
use vmm_abi::{Errno, PAGE_SIZE};
use vmm_hypervisor::Machine;
use vmm_kernel::{
    ExitStatus, Files, Kernel, OpenFile, RestoreError, ThreadShared, wait_for_timer_thread,
};
use vmm_memory::{PageMap, SavedFile};
use vmm_snapshot::Snapshot;

use crate::process::Ground;
use crate::runner::Threads;

/// Longest order.
const MOST_BYTES: usize = 1024;
/// Pieces of memory that are told of.
const MOST_RANGES: usize = 1024;
/// How long the other end of the stream may leave no room for the mark.
const PATIENCE: Duration = Duration::from_secs(5);
/// Page tables, slots and the monitor's own memory may have grown by so much since the guest was brought back; they are never given back.
const MOST_GROWTH: u64 = 16 << 20;
/// The descriptor of the guest by which it speaks to who owns it.
const STREAM: i32 = 3;

/// Why a guest is not as it was; it is of no use then.
#[derive(Debug)]
pub enum ResetError {
    Restore(RestoreError),
    /// Something of the former process is still there.
    Left(&'static str),
    /// The stream at 3 cannot be used any more.
    Stream(Errno),
    /// A new process.
    Process(Errno),
}

impl fmt::Display for ResetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restore(error) => error.fmt(f),
            Self::Left(what) => write!(f, "{what}"),
            Self::Stream(errno) => write!(f, "the stream at 3: {errno}"),
            Self::Process(errno) => write!(f, "a new process: {errno}"),
        }
    }
}

impl std::error::Error for ResetError {}

/// `{"pid", "mark"}`, and a newline.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Process id that the guest is to see from now on.
    pid: i32,
    /// What is written to the stream at 3 when nothing more of the former guest can follow: hexadecimal.
    mark: String,
}

/// `{"look": true}`, and a newline.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Look {
    #[serde(rename = "look")]
    _look: bool,
}

/// A reset that is under way.
pub struct Wanted {
    pid: i32,
    mark: Vec<u8>,
    began: Instant,
}

#[derive(Default)]
struct State {
    /// The process that an order is for.
    kernel: Weak<Kernel>,
    wanted: Option<Wanted>,
    /// The process that has been told to end: the reactor may not be the one to take it apart.
    told: Option<Arc<Kernel>>,
    /// What came of an order that is not whole yet.
    held: Vec<u8>,
}

/// Where resets are asked for and answered.
pub struct Resets {
    control: Arc<OwnedFd>,
    pages: PageMap,
    state: Arc<Mutex<State>>,
}

/// What the guest goes back to.
pub struct Origin {
    pub ground: Ground,
    pub machine: Arc<Machine>,
    pub snapshot: Snapshot,
    pub file: SavedFile,
    pub streams: Files,
    /// What the monitor held for the guest when it had been brought back.
    held: u64,
}

impl Origin {
    /// To be called when the guest has been brought back and does not run yet: what becomes of its memory is noted from then on.
    pub fn new(
        ground: Ground,
        machine: Arc<Machine>,
        snapshot: Snapshot,
        file: OwnedFd,
        streams: Files,
    ) -> Self {
        ground.memory.keep_track();
        let mut origin = Self {
            ground,
            machine,
            snapshot,
            file: SavedFile::new(file),
            streams,
            held: 0,
        };
        origin.held = origin.holds();
        origin
    }

    /// Bytes that are in use for the guest, and that the host keeps for its machine.
    fn holds(&self) -> u64 {
        let (used, _) = self.ground.memory.used_bytes();
        used.saturating_add(self.machine.kept_bytes())
    }
}

impl Resets {
    /// Before the monitor is confined.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn new(control: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            control: Arc::new(control),
            pages: PageMap::open()?,
            state: Arc::default(),
        })
    }

    /// The socket by which they are asked for.
    pub fn control(&self) -> &OwnedFd {
        &self.control
    }

    /// From now on orders are for this process; from the first call on the reactor hears them.
    ///
    /// # Errors
    /// What the host says when it cannot be told of them.
    pub fn watch(&self, kernel: &Arc<Kernel>, machine: &Arc<Machine>) -> io::Result<()> {
        let mut state = self.state.lock();
        let first = state.kernel.strong_count() == 0 && Weak::ptr_eq(&state.kernel, &Weak::new());
        state.kernel = Arc::downgrade(kernel);
        drop(state);
        if first {
            let (control, state) = (Arc::clone(&self.control), Arc::clone(&self.state));
            let machine = Arc::clone(machine);
            let heard = move || hear(&control, &state, &machine);
            vmm_kernel::hear(self.control.as_fd(), Arc::new(heard))?;
        }
        Ok(())
    }

    /// The reset that ended the process, if one did.
    pub fn take(&self) -> Option<Wanted> {
        let mut state = self.state.lock();
        let (wanted, told) = (state.wanted.take(), state.told.take());
        drop(state);
        drop(told);
        wanted
    }

    /// Makes everything anew for a process whose threads have all been told to end. The threads it answers are to be started, once
    /// [`Resets::done`] has told.
    ///
    /// # Errors
    /// [`ResetError`]; the micro-VM is then to end.
    pub fn make_anew(
        &self,
        wanted: &Wanted,
        origin: &Origin,
        former: Arc<Kernel>,
        threads: &Threads,
    ) -> Result<Renewed, ResetError> {
        threads.wait_until_gone();
        let gone = Arc::downgrade(&former);
        drop(former);
        all_gone(&gone)?;
        let stopped = wanted.began.elapsed();
        let stream = origin.streams.get(&STREAM);
        if let Some(stream) = stream {
            stream.discard().map_err(ResetError::Stream)?;
        }
        let kernel = origin
            .ground
            .process(wanted.pid)
            .map_err(ResetError::Process)?;
        let (threads, undone) = kernel
            .bring_again(
                &origin.snapshot.memory,
                &origin.snapshot.process,
                &origin.file,
                &origin.streams,
                &self.pages,
            )
            .map_err(ResetError::Restore)?;
        let rewritten = undone.rewritten_pages.saturating_mul(PAGE_SIZE);
        let held = origin.holds().saturating_sub(rewritten);
        if held.saturating_sub(origin.held) > MOST_GROWTH {
            return Err(ResetError::Left(
                "page tables, slots or memory of the monitor have grown too much",
            ));
        }
        if let Some(stream) = stream {
            // The former guest may have left the socket full; whoever reads it looks for the mark.
            stream
                .put_all(&wanted.mark, PATIENCE)
                .map_err(ResetError::Stream)?;
        }
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let answer = json!({
            "ok": true,
            "stopMs": ms(stopped),
            "renewMs": ms(wanted.began.elapsed().saturating_sub(stopped)),
            "rewrittenPages": undone.rewritten_pages,
            "droppedPages": undone.dropped_pages,
            "remappedBytes": undone.remapped_bytes,
        });
        Ok(Renewed {
            kernel,
            threads,
            answer,
        })
    }

    /// Tells that the guest is as it was.
    pub fn done(&self, renewed: &Renewed) {
        answer(&self.control, &renewed.answer);
    }

    /// Tells that it is not, and will be no more.
    pub fn failed(&self, error: &ResetError) {
        refuse(&self.control, &error.to_string());
    }
}

/// A guest as it was, its threads not yet started.
pub struct Renewed {
    pub kernel: Arc<Kernel>,
    pub threads: Vec<Arc<ThreadShared>>,
    answer: Value,
}

/// Whether neither the former process nor a file that it had open is there any more. A timer that goes off just now holds it until it has been told, and
/// may be the one that takes it apart.
fn all_gone(former: &Weak<Kernel>) -> Result<(), ResetError> {
    wait_for_timer_thread();
    if former.strong_count() > 0 {
        return Err(ResetError::Left("the former process is still held"));
    }
    // Files can hold each other: sockets with themselves in flight.
    if OpenFile::live() > 0 {
        return Err(ResetError::Left("files of the former process are held"));
    }
    Ok(())
}

/// What the guest has touched, if that was watched: `{"ok", "read", "written"}`.
fn look(machine: &Machine) -> Value {
    match machine.touches() {
        Ok(Some(mut touches)) => {
            touches.read.truncate(MOST_RANGES);
            touches.written.truncate(MOST_RANGES);
            json!({"ok": true, "read": touches.read, "written": touches.written})
        }
        Ok(None) => json!({"ok": false, "reason": "what the program touches was not watched"}),
        Err(error) => json!({"ok": false, "reason": error.to_string()}),
    }
}

/// Hears the orders that have come. Called by the reactor.
fn hear(control: &OwnedFd, state: &Mutex<State>, machine: &Machine) {
    let mut state = state.lock();
    loop {
        let line = match next_line(control, &mut state.held) {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(error) => {
                refuse(control, &error.to_string());
                return;
            }
        };
        if serde_json::from_slice::<Look>(&line).is_ok() {
            answer(control, &look(machine));
            continue;
        }
        let wanted = match read_order(&line) {
            Ok(wanted) => wanted,
            Err(reason) => {
                refuse(control, &reason);
                continue;
            }
        };
        if state.wanted.is_some() {
            refuse(control, "a reset is under way");
            continue;
        }
        // Before the process ends, so that who waits for its end finds it.
        state.wanted = Some(wanted);
        state.told = state.kernel.upgrade();
        let told = state.told.as_ref();
        let ended = told.is_some_and(|k| k.end_first(ExitStatus::Signal(vmm_abi::SIGKILL)));
        if !ended {
            state.wanted = None;
            refuse(control, "the program has ended");
        }
    }
}

fn read_order(line: &[u8]) -> Result<Wanted, String> {
    let order: Order = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if order.pid < 1 {
        return Err("the process id is none".into());
    }
    let text = order.mark.as_bytes();
    let hexadecimal = text.len() % 2 == 0 && text.iter().all(u8::is_ascii_hexdigit);
    let digits = text.chunks(2);
    let mark: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let mark = mark.filter(|_| hexadecimal);
    Ok(Wanted {
        pid: order.pid,
        mark: mark.ok_or("the mark is not hexadecimal")?,
        began: Instant::now(),
    })
}

/// The next line; `None` when it has not come, or the other end was closed.
fn next_line(control: &OwnedFd, held: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let rest = held.split_off(end.saturating_add(1));
            return Ok(Some(std::mem::replace(held, rest)));
        }
        if held.len() >= MOST_BYTES {
            return Err(io::Error::other("the order is too long"));
        }
        let mut part = [0u8; MOST_BYTES];
        let received = recvmsg(
            control,
            &mut [IoSliceMut::new(&mut part)],
            &mut RecvAncillaryBuffer::default(),
            RecvFlags::DONTWAIT,
        );
        match received.map(|received| received.bytes) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Ok(count) => held.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn refuse(control: &OwnedFd, reason: &str) {
    answer(control, &json!({"ok": false, "reason": reason}));
}

fn answer(control: &OwnedFd, answer: &Value) {
    let text = format!("{answer}\n");
    // Whoever asked may have gone, and then nobody wants to know.
    let _ = sendmsg(
        control,
        &[IoSlice::new(text.as_bytes())],
        &mut SendAncillaryBuffer::default(),
        SendFlags::NOSIGNAL,
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_order_is_a_process_id_and_a_mark() {
        let wanted = read_order(br#"{"pid": 7, "mark": "00ff10"}"#).unwrap();
        assert_eq!((wanted.pid, wanted.mark), (7, vec![0, 255, 16]));
        for wrong in [
            r#"{"pid": 0, "mark": ""}"#,
            r#"{"pid": 7, "mark": "0"}"#,
            r#"{"pid": 7, "mark": "+1"}"#,
            r#"{"pid": 7, "mark": "0g"}"#,
            r#"{"pid": 7}"#,
            r#"{"pid": 7, "mark": "", "more": 1}"#,
            "",
        ] {
            assert!(read_order(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_come_in_any_pieces_and_are_bounded() {
        use std::io::Write;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let mut held = Vec::new();
        ours.write_all(b"one\ntw").unwrap();
        assert_eq!(next_line(&theirs, &mut held).unwrap().unwrap(), b"one\n");
        assert!(next_line(&theirs, &mut held).unwrap().is_none());
        ours.write_all(b"o\n").unwrap();
        assert_eq!(next_line(&theirs, &mut held).unwrap().unwrap(), b"two\n");
        ours.write_all(&[b'x'; MOST_BYTES]).unwrap();
        assert!(next_line(&theirs, &mut held).is_err());
        held.clear();
        drop(ours);
        assert!(next_line(&theirs, &mut held).unwrap().is_none());
    }
}
