//! One invocation: a child process, the request on its way in and the answer on its way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::function_url;
use crate::log::LogLines;
use crate::messages::{Fault, Head, Invoke, Kind};
use cloister_protocol::{FrameType, FrameWriter, MAX_DATA_BYTES, WINDOW_BYTES};

/// A body that travels as one JSON value: the platform's limit for synchronous bodies.
const MAX_WHOLE_BYTES: usize = 6 << 20;
/// How long the first bytes of a streamed answer wait, so that a program which fails at once is a 500 and no broken 200.
const HOLD: Duration = Duration::from_millis(5);

/// Reads of at least half a pipe (pipe(7): 64 KiB) after the program has ended.
const MAX_DRAIN_READS: usize = 4;

/// A descriptor of a call and what to wait for on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Stdin,
    Stdout,
    Stderr,
}

/// Where the answer stands.
enum Answer {
    /// Nothing sent; what kind of answer it is shows when more is there.
    Open(Vec<u8>),
    /// Nothing sent; the answer must be whole to be read.
    Gather(Vec<u8>),
    /// The head is sent; these bytes wait for window.
    Stream(Vec<u8>),
}

pub struct Call {
    stream: u32,
    invoke: Invoke,
    child: Child,
    exited: Option<ExitStatus>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Of the request: not yet given to the program, or, for an HTTP request, gathered until it is whole.
    request: Vec<u8>,
    request_written: usize,
    request_whole: bool,
    /// What the other side may still send, and what was used up since the last grant.
    receive_window: usize,
    ungranted: usize,
    send_window: usize,
    answer: Answer,
    hold_until: Option<Instant>,
    log: LogLines,
    fault: Option<Fault>,
    started: Instant,
}

impl Call {
    /// Starts the program. `command` has its environment already.
    pub fn start(stream: u32, invoke: Invoke, mut command: Command) -> Result<Self, Fault> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: ending the group ends what the program started, too.
            .process_group(0)
            .spawn()
            .map_err(|error| start_fault(&error))?;
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for pipe in [&stdin, &stdout, &stderr].into_iter().flatten() {
            let _ = rustix::io::ioctl_fionbio(pipe, true);
        }
        let answer = match invoke.kind {
            Kind::Http => Answer::Open(Vec::new()),
            Kind::Event => Answer::Gather(Vec::new()),
        };
        Ok(Self {
            stream,
            invoke,
            child,
            exited: None,
            stdin,
            stdout,
            stderr,
            request: Vec::new(),
            request_written: 0,
            request_whole: false,
            receive_window: WINDOW_BYTES,
            ungranted: 0,
            send_window: WINDOW_BYTES,
            answer,
            hold_until: None,
            log: LogLines::default(),
            fault: None,
            started: Instant::now(),
        })
    }

    /// Process id of the program.
    pub fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Descriptors the call waits for now.
    pub fn waits(&self) -> impl Iterator<Item = (Channel, BorrowedFd<'_>)> {
        let stdin = self.stdin.as_ref().filter(|_| self.has_input());
        let stdout = self.stdout.as_ref().filter(|_| self.wants_output());
        [
            (Channel::Stdin, stdin),
            (Channel::Stdout, stdout),
            (Channel::Stderr, self.stderr.as_ref()),
        ]
        .into_iter()
        .filter_map(|(channel, fd)| Some((channel, fd?.as_fd())))
    }

    /// When `settle` must be called even if nothing happens.
    pub fn wake_at(&self) -> Option<Instant> {
        self.hold_until
    }

    fn has_input(&self) -> bool {
        let ready = self.invoke.kind == Kind::Event || self.request_whole;
        ready && self.request_written < self.request.len()
    }

    fn wants_output(&self) -> bool {
        match &self.answer {
            Answer::Stream(pending) => pending.is_empty() && self.send_window > 0,
            Answer::Open(_) | Answer::Gather(_) => true,
        }
    }

    /// Takes a piece of the request body. The error is a protocol error.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() || bytes.len() > MAX_DATA_BYTES {
            return Err(format!("a DATA frame of {} bytes", bytes.len()));
        }
        let Some(left) = self.receive_window.checked_sub(bytes.len()) else {
            return Err("more DATA than the window allows".into());
        };
        if self.request_whole {
            return Err("DATA after END".into());
        }
        self.receive_window = left;
        if self.invoke.kind == Kind::Http {
            self.ungranted = self.ungranted.saturating_add(bytes.len());
            if self.request.len().saturating_add(bytes.len()) > MAX_WHOLE_BYTES {
                self.fail(Fault::function(
                    "BodyTooLarge",
                    "The request body is over 6 MiB, more than an event of a binary function can carry.",
                    "",
                ));
                return Ok(());
            }
        }
        if self.stdin.is_some() {
            self.request.extend_from_slice(bytes);
        } else {
            // The program has closed its stdin: the rest is read and dropped.
            self.ungranted = self.ungranted.saturating_add(bytes.len());
        }
        Ok(())
    }

    /// The request body is whole.
    pub fn end_of_request(&mut self) {
        self.request_whole = true;
        if self.invoke.kind == Kind::Http && self.stdin.is_some() {
            let event = function_url::event(&self.invoke, &self.request);
            self.request = serde_json::to_vec(&event).unwrap_or_default();
        }
        if self.request.is_empty() {
            self.stdin = None;
        }
    }

    /// The receiver of the answer takes `bytes` more.
    pub fn grant(&mut self, bytes: u32) {
        self.send_window = self.send_window.saturating_add(bytes as usize);
    }

    /// Ends the program; the invocation ends with `fault` when it is gone.
    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.kill();
    }

    /// Kills the program and what it started.
    pub fn kill(&self) {
        // Until it is reaped its id, and so its group's, cannot be anyone else's.
        if self.exited.is_none()
            && let Some(pid) = self.pid()
        {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Reaps the program, which has ended, and ends whatever it left in its group.
    pub fn reap(&mut self) {
        self.kill();
        if self.exited.is_none() {
            self.exited = self.child.wait().ok();
        }
    }

    /// Reads or writes what a descriptor is ready for.
    pub fn serve<W: io::Write>(
        &mut self,
        channel: Channel,
        writer: &mut FrameWriter<W>,
    ) -> io::Result<()> {
        match channel {
            Channel::Stdin => {
                self.write_stdin();
                Ok(())
            }
            Channel::Stdout => {
                self.read_stdout();
                Ok(())
            }
            Channel::Stderr => self.read_stderr(writer),
        }
    }

    fn write_stdin(&mut self) {
        let Some(pipe) = &self.stdin else { return };
        let rest = self.request.get(self.request_written..).unwrap_or_default();
        let written = match rustix::io::write(pipe, rest) {
            Ok(bytes) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {
                self.stdin = None;
                rest.len()
            }
        };
        if self.invoke.kind == Kind::Event {
            self.ungranted = self.ungranted.saturating_add(written);
        }
        self.request_written = self.request_written.saturating_add(written);
        if self.request_written >= self.request.len() {
            self.request.clear();
            self.request_written = 0;
            if self.request_whole {
                self.stdin = None;
            }
        }
    }

    fn read_stdout(&mut self) {
        let Some(pipe) = &self.stdout else { return };
        let mut piece = vec![0; MAX_DATA_BYTES];
        match rustix::io::read(pipe, &mut piece) {
            Ok(0) => self.stdout = None,
            Ok(bytes) => {
                piece.truncate(bytes);
                self.take_output(&piece);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if self.exited.is_none() => {}
            // A process that left the group may hold the pipe open; the program itself is gone.
            Err(_) => self.stdout = None,
        }
    }

    fn take_output(&mut self, piece: &[u8]) {
        match &mut self.answer {
            Answer::Open(held) | Answer::Gather(held) | Answer::Stream(held) => {
                held.extend_from_slice(piece);
            }
        }
        if let Answer::Open(held) = &mut self.answer {
            match held.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{' | b'[') => self.answer = Answer::Gather(std::mem::take(held)),
                Some(_) if self.hold_until.is_none() => {
                    self.hold_until = Instant::now().checked_add(HOLD);
                }
                Some(_) | None => {}
            }
        }
    }

    fn read_stderr<W: io::Write>(&mut self, writer: &mut FrameWriter<W>) -> io::Result<()> {
        let Some(pipe) = &self.stderr else {
            return Ok(());
        };
        let mut piece = vec![0; MAX_DATA_BYTES / 2];
        let payloads = match rustix::io::read(pipe, &mut piece) {
            Err(Errno::INTR) => Vec::new(),
            Err(Errno::AGAIN) if self.exited.is_none() => Vec::new(),
            Ok(0) | Err(_) => {
                self.stderr = None;
                self.log.finish()
            }
            Ok(bytes) => self.log.push(piece.get(..bytes).unwrap_or_default()),
        };
        for payload in payloads {
            writer.send(FrameType::Log, self.stream, &payload)?;
        }
        Ok(())
    }

    /// Sends what can be sent now. Gives true when the invocation is over.
    pub fn settle<W: io::Write>(&mut self, writer: &mut FrameWriter<W>) -> io::Result<bool> {
        if self.exited.is_some() {
            // What the program wrote before it ended is in the pipes. A process that left its group may go on writing:
            // the bound keeps it from holding up the other calls.
            for _ in 0..MAX_DRAIN_READS {
                self.read_stderr(writer)?;
                if self.wants_output() && self.fault.is_none() {
                    self.read_stdout();
                    self.advance(writer)?;
                }
            }
        }
        self.advance(writer)?;
        if self.ungranted >= WINDOW_BYTES / 2 && !self.request_whole {
            let bytes = u32::try_from(self.ungranted).unwrap_or(u32::MAX);
            writer.send(FrameType::Window, self.stream, &bytes.to_le_bytes())?;
            self.receive_window = self.receive_window.saturating_add(self.ungranted);
            self.ungranted = 0;
        }
        self.finish(writer)
    }

    /// Moves the answer on: decides what it is, sends what the window lets through.
    fn advance<W: io::Write>(&mut self, writer: &mut FrameWriter<W>) -> io::Result<()> {
        if let Answer::Gather(held) = &mut self.answer
            && held.len() > MAX_WHOLE_BYTES
        {
            if self.invoke.kind == Kind::Event {
                held.clear();
                self.fail(Fault::bad_response(
                    "The program's answer to an event is over 6 MiB. Answer large data over HTTP, where it is streamed.",
                ));
                return Ok(());
            }
            let held = std::mem::take(held);
            self.begin(&function_url::head(200, "application/json"), held, writer)?;
        }
        if let Answer::Open(held) = &mut self.answer
            && self.exited.is_none()
            && self.hold_until.is_some_and(|until| until <= Instant::now())
        {
            let held = std::mem::take(held);
            self.begin(&function_url::plain_head(&held), held, writer)?;
        }
        let Answer::Stream(pending) = &mut self.answer else {
            return Ok(());
        };
        while self.send_window > 0 && !pending.is_empty() {
            let bytes = pending.len().min(MAX_DATA_BYTES).min(self.send_window);
            let piece: Vec<u8> = pending.drain(..bytes).collect();
            writer.send(FrameType::Data, self.stream, &piece)?;
            self.send_window = self.send_window.saturating_sub(bytes);
        }
        Ok(())
    }

    fn begin<W: io::Write>(
        &mut self,
        head: &Head,
        body: Vec<u8>,
        writer: &mut FrameWriter<W>,
    ) -> io::Result<()> {
        self.hold_until = None;
        self.answer = Answer::Stream(body);
        writer.send_json(FrameType::Head, self.stream, head)
    }

    fn finish<W: io::Write>(&mut self, writer: &mut FrameWriter<W>) -> io::Result<bool> {
        let Some(status) = self.exited else {
            return Ok(false);
        };
        let fault = self.fault.take().or_else(|| self.exit_fault(status));
        if let Some(fault) = fault {
            writer.send_json(FrameType::Error, self.stream, &fault)?;
            return Ok(true);
        }
        if let Answer::Open(held) | Answer::Gather(held) = &mut self.answer {
            if self.stdout.is_some() {
                return Ok(false);
            }
            let output = std::mem::take(held);
            let read = match self.invoke.kind {
                Kind::Http => function_url::answer(output),
                Kind::Event => event_answer(output),
            };
            match read {
                Ok((head, body)) => self.begin(&head, body, writer)?,
                Err(fault) => {
                    writer.send_json(FrameType::Error, self.stream, &fault)?;
                    return Ok(true);
                }
            }
            self.advance(writer)?;
        }
        let sent = matches!(&self.answer, Answer::Stream(pending) if pending.is_empty());
        if !sent || self.stdout.is_some() {
            return Ok(false);
        }
        let handler_ms = self.started.elapsed().as_secs_f64() * 1000.0;
        let trailer = json!({ "handlerMs": (handler_ms * 1000.0).round() / 1000.0 });
        writer.send_json(FrameType::End, self.stream, &trailer)?;
        Ok(true)
    }

    fn exit_fault(&self, status: ExitStatus) -> Option<Fault> {
        if status.success() {
            return None;
        }
        let stack = self.log.last_lines();
        Some(match status.signal() {
            Some(number) => {
                let name = Signal::from_named_raw(number).map_or("signal", signal_name);
                let message = format!("The program was ended by signal {number} ({name}).");
                Fault::function("SignalError", &message, &stack)
            }
            None => {
                let code = status.code().unwrap_or_default();
                let message = format!("The program exited with code {code}.");
                Fault::function("ExitError", &message, &stack)
            }
        })
    }
}

/// The answer to an event: JSON as it is, other text as a JSON string.
fn event_answer(mut output: Vec<u8>) -> Result<(Head, Vec<u8>), Fault> {
    let head = function_url::head(200, "application/json");
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok((head, b"null".to_vec()));
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&output).is_ok() {
        return Ok((head, output));
    }
    while output.last().is_some_and(u8::is_ascii_whitespace) {
        output.pop();
    }
    let text = String::from_utf8(output).map_err(|_| {
        Fault::bad_response(
            "The program's answer is neither JSON nor UTF-8 text. Write JSON to stdout.",
        )
    })?;
    Ok((head, serde_json::to_vec(&text).unwrap_or_default()))
}

fn start_fault(error: &io::Error) -> Fault {
    let message = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => {
            "The program cannot start: the sandbox has no process to spare. Raise the limit or lower concurrency.".into()
        }
        Some(Errno::NOMEM) => {
            "The program cannot start: the sandbox is out of memory. Raise memoryMb.".into()
        }
        _ => format!("The program cannot start: {error}."),
    };
    Fault::function("StartError", &message, "")
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::KILL => "SIGKILL",
        Signal::SEGV => "SIGSEGV",
        Signal::ABORT => "SIGABRT",
        Signal::ILL => "SIGILL",
        Signal::FPE => "SIGFPE",
        Signal::BUS => "SIGBUS",
        Signal::TERM => "SIGTERM",
        Signal::PIPE => "SIGPIPE",
        Signal::SYS => "SIGSYS",
        Signal::TRAP => "SIGTRAP",
        _ => "signal",
    }
}
