//! The loop between the socket and the programs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::json;

use crate::call::{Call, Channel};
use crate::entry::find_program;
use crate::messages::{Fault, Init, Invoke};
use cloister_protocol::{Frame, FrameReader, FrameType, FrameWriter};

const WAITER_STACK_BYTES: usize = 64 << 10;

/// Why the runner ends.
#[derive(Debug)]
pub enum Ended {
    /// The other side is gone.
    Closed,
    /// The other side broke the protocol.
    Protocol(String),
    Io(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

struct Function {
    init: Init,
    program: Option<PathBuf>,
}

enum Source {
    Socket,
    Wake,
    Call(u32, Channel),
}

pub struct Runner {
    socket: UnixStream,
    writer: FrameWriter<UnixStream>,
    reader: FrameReader,
    function: Option<Function>,
    calls: BTreeMap<u32, Call>,
    last_stream: u32,
    exits: (Sender<u32>, Receiver<u32>),
    /// A byte here says a program has ended.
    wake: (UnixStream, UnixStream),
}

impl Runner {
    /// Says READY. `started` is when the process began.
    pub fn new(socket: UnixStream, started: Instant) -> io::Result<Self> {
        let mut writer = FrameWriter::new(socket.try_clone()?);
        let boot_ms = started.elapsed().as_secs_f64() * 1000.0;
        let version = env!("CARGO_PKG_VERSION");
        let ready = json!({ "runner": "binary", "version": version, "bootMs": boot_ms });
        writer.send_json(FrameType::Ready, 0, &ready)?;
        Ok(Self {
            socket,
            writer,
            reader: FrameReader::new(FrameType::is_for_runner),
            function: None,
            calls: BTreeMap::new(),
            last_stream: 0,
            exits: channel(),
            wake: UnixStream::pair()?,
        })
    }

    /// Serves until the socket closes; every program still running is ended then.
    pub fn run(&mut self) -> Ended {
        let ended = loop {
            if let Err(ended) = self.turn() {
                break ended;
            }
        };
        for call in self.calls.values() {
            call.kill();
        }
        ended
    }

    fn turn(&mut self) -> Result<(), Ended> {
        for source in self.ready()? {
            match source {
                Source::Socket => {
                    if !self.reader.fill(&mut self.socket)? {
                        return Err(Ended::Closed);
                    }
                    while let Some(frame) = self.next_frame()? {
                        self.frame(frame)?;
                    }
                }
                Source::Wake => {
                    let _ = rustix::io::read(&self.wake.0, &mut [0; 64]);
                    while let Ok(stream) = self.exits.1.try_recv() {
                        if let Some(call) = self.calls.get_mut(&stream) {
                            call.reap();
                        }
                    }
                }
                Source::Call(stream, channel) => {
                    if let Some(call) = self.calls.get_mut(&stream) {
                        call.serve(channel, &mut self.writer)?;
                    }
                }
            }
        }
        let mut over = Vec::new();
        for (stream, call) in &mut self.calls {
            if call.settle(&mut self.writer)? {
                over.push(*stream);
            }
        }
        for stream in over {
            self.calls.remove(&stream);
        }
        Ok(())
    }

    /// Waits until something can be done and says what.
    fn ready(&self) -> Result<Vec<Source>, Ended> {
        let mut sources = vec![Source::Socket, Source::Wake];
        let mut fds = vec![
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&self.wake.0, PollFlags::IN),
        ];
        let mut wake_at: Option<Instant> = None;
        for (stream, call) in &self.calls {
            for (channel, fd) in call.waits() {
                let flags = match channel {
                    Channel::Stdin => PollFlags::OUT,
                    Channel::Stdout | Channel::Stderr => PollFlags::IN,
                };
                sources.push(Source::Call(*stream, channel));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
            wake_at = [wake_at, call.wake_at()].into_iter().flatten().min();
        }
        let timeout = wake_at.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Ended::Io(error.into())),
        }
        Ok(sources
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(source, _)| source)
            .collect())
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, Ended> {
        self.reader
            .next_frame()
            .map_err(|error| Ended::Protocol(error.to_string()))
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Ended> {
        let Frame {
            kind,
            stream,
            payload,
        } = frame;
        match kind {
            FrameType::Init => self.init(&payload),
            FrameType::Invoke => self.invoke(stream, &payload),
            FrameType::Data => match self.open(stream, "DATA")? {
                Some(call) => call.data(&payload).map_err(Ended::Protocol),
                None => Ok(()),
            },
            FrameType::End => {
                if let Some(call) = self.open(stream, "END")? {
                    call.end_of_request();
                }
                Ok(())
            }
            FrameType::Cancel => {
                if let Some(call) = self.calls.get_mut(&stream) {
                    call.fail(Fault::cancelled());
                }
                Ok(())
            }
            FrameType::Window => {
                let bytes = payload
                    .first_chunk::<4>()
                    .filter(|_| payload.len() == 4)
                    .ok_or_else(|| Ended::Protocol("a WINDOW frame of the wrong size".into()))?;
                if let Some(call) = self.calls.get_mut(&stream) {
                    call.grant(u32::from_le_bytes(*bytes));
                }
                Ok(())
            }
            // A program starts anew per invocation: there is no state to renew.
            // This runner lets no call wait behind others, so there is none to be called back.
            FrameType::Restored | FrameType::Recall => Ok(()),
            other => Err(Ended::Protocol(format!("{other:?} in the wrong direction"))),
        }
    }

    /// The open call of a stream; none if it was open once, an error if it never was.
    fn open(&mut self, stream: u32, what: &str) -> Result<Option<&mut Call>, Ended> {
        if stream == 0 || stream > self.last_stream {
            let message = format!("{what} for stream {stream}, which is not open");
            return Err(Ended::Protocol(message));
        }
        Ok(self.calls.get_mut(&stream))
    }

    fn init(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let started = Instant::now();
        if self.function.is_some() {
            return Err(Ended::Protocol("a second INIT".into()));
        }
        let init: Init = serde_json::from_slice(payload)
            .map_err(|error| Ended::Protocol(format!("INIT cannot be read: {error}")))?;
        let bad_name = init.env.iter().any(|(name, value)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        });
        let found = if bad_name {
            Err(Fault::init(
                "An environment variable has an empty name, an = in its name or a zero byte. Rename it.",
            ))
        } else {
            enter(&init.root).and_then(|()| find_program(&init.root, init.entry.as_deref()))
        };
        let answer = match &found {
            Ok(_) => json!({ "ok": true, "initMs": started.elapsed().as_secs_f64() * 1000.0 }),
            Err(fault) => json!({ "ok": false, "error": fault }),
        };
        self.function = Some(Function {
            init,
            program: found.ok(),
        });
        Ok(self.writer.send_json(FrameType::InitDone, 0, &answer)?)
    }

    fn invoke(&mut self, stream: u32, payload: &[u8]) -> Result<(), Ended> {
        if stream <= self.last_stream {
            return Err(Ended::Protocol(format!(
                "stream {stream} was opened before"
            )));
        }
        self.last_stream = stream;
        let invoke: Invoke = serde_json::from_slice(payload)
            .map_err(|error| Ended::Protocol(format!("INVOKE cannot be read: {error}")))?;
        let Some(function) = &self.function else {
            return Err(Ended::Protocol("INVOKE before INIT".into()));
        };
        let started = match &function.program {
            Some(program) => {
                let command = command(program, &function.init, &invoke);
                Call::start(stream, invoke, command)
            }
            None => Err(Fault::init("The function failed to initialise.")),
        };
        let watched = started.and_then(|call| self.watch(stream, call));
        match watched {
            Ok(call) => {
                self.calls.insert(stream, call);
                Ok(())
            }
            Err(fault) => Ok(self.writer.send_json(FrameType::Error, stream, &fault)?),
        }
    }

    /// Has a thread wait for the end of the program. It does not reap it: only the loop does, so no id is used twice.
    fn watch(&self, stream: u32, mut call: Call) -> Result<Call, Fault> {
        let exits = self.exits.0.clone();
        let wake = self.wake.1.try_clone();
        let (Some(pid), Ok(mut wake)) = (call.pid(), wake) else {
            call.reap();
            return Err(Fault::function(
                "StartError",
                "The sandbox is out of descriptors.",
                "",
            ));
        };
        let waiter = move || {
            wait_without_reaping(pid);
            let _ = exits.send(stream);
            let _ = wake.write_all(&[1]);
        };
        match thread::Builder::new()
            .stack_size(WAITER_STACK_BYTES)
            .spawn(waiter)
        {
            Ok(_) => Ok(call),
            Err(error) => {
                call.reap();
                let message = format!("The sandbox has no thread to spare: {error}.");
                Err(Fault::function("StartError", &message, ""))
            }
        }
    }
}

fn wait_without_reaping(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}

/// Programs start in the function's folder.
fn enter(root: &str) -> Result<(), Fault> {
    std::env::set_current_dir(root).map_err(|error| {
        Fault::init(&format!(
            "The function's folder {root} cannot be entered: {error}."
        ))
    })
}

fn command(program: &PathBuf, init: &Init, invoke: &Invoke) -> Command {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let deadline_ms = since_epoch.as_secs_f64() * 1000.0 + invoke.deadline_ms;
    let version = match &init.version {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let kind = match invoke.kind {
        crate::messages::Kind::Http => "http",
        crate::messages::Kind::Event => "event",
    };
    let mut command = Command::new(program);
    command
        .envs(&init.env)
        .env("CLOISTER_INVOCATION_ID", invoke.id.replace('\0', ""))
        .env("CLOISTER_INVOCATION_KIND", kind)
        .env("CLOISTER_FUNCTION_NAME", init.function.replace('\0', ""))
        .env("CLOISTER_FUNCTION_VERSION", version.replace('\0', ""))
        .env("CLOISTER_MEMORY_MB", init.memory_mb.to_string())
        .env("CLOISTER_DEADLINE_MS", format!("{deadline_ms:.0}"));
    command
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
