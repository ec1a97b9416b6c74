//! A sandboxd of a test's own, an image of busybox, and clients. Everything is real; needs root.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cloister_protocol::{Frame, FrameReader, FrameType, encode_json};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing that is awaited takes this long; then the test fails instead of hanging.
const BOUND: Duration = Duration::from_secs(30);
/// Runs each line that comes on descriptor 3 as a shell command; ends at end of file.
const RUNNER: &str = "while read -r line <&3; do eval \"$line\"; done";
pub const DIGEST: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

static NEXT: AtomicU32 = AtomicU32::new(1);

pub struct Rig {
    pub folder: TempDir,
    pub instance: String,
    pub process: Child,
    stdout: Option<BufReader<ChildStdout>>,
    /// Where stderr went.
    pub log: PathBuf,
    pub extra: Vec<String>,
}

impl Rig {
    /// A sandboxd that is ready, with the image `shell` and one bundle.
    pub fn start(extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o711),
        )
        .unwrap();
        let layer = "ab".repeat(32);
        let root = folder.path().join("images/layers").join(&layer);
        for name in ["bin", "proc", "dev", "tmp", "fn"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("install busybox-static");
        let manifest = json!({"schema": 1, "name": "shell", "digest": "ef".repeat(32), "layers": [layer],
            "runner": {"argv": ["/bin/busybox", "sh", "-c", RUNNER], "env": {"PATH": "/bin"}}});
        fs::write(
            folder.path().join("images/shell.json"),
            manifest.to_string(),
        )
        .unwrap();
        let bundle = folder.path().join("bundles").join(DIGEST);
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("hello"), "from the bundle\n").unwrap();
        // Unique per test process and test, so that none meets another's leftovers.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("{:06x}{number:02x}", std::process::id() & 0x00ff_ffff);
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        let log = folder.path().join("log");
        let (process, stdout) = launch(folder.path(), &instance, &extra);
        let mut rig = Self {
            folder,
            instance,
            process,
            stdout: Some(stdout),
            log,
            extra,
        };
        rig.await_ready();
        rig
    }

    pub fn command(&self) -> Command {
        command(self.folder.path(), &self.instance, &self.extra)
    }

    fn await_ready(&mut self) {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        assert!(line.contains(r#""ready":true"#), "{line} {}", self.logged());
    }

    /// As a crash: SIGKILL, and the process is gone.
    pub fn crash(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        let (process, stdout) = launch(self.folder.path(), &self.instance, &self.extra);
        self.process = process;
        self.stdout = Some(stdout);
        self.await_ready();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).unwrap();
        self.process.wait().unwrap()
    }

    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sandboxd.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(self.socket()).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        socket
    }

    pub fn control(&self) -> Control {
        let mut control = Control {
            socket: self.connect(),
            reader: FrameReader::new(|_| true),
            events: VecDeque::new(),
            replies: Vec::new(),
            next: 1,
        };
        assert_eq!(control.ask(json!({"op": "hello"}))["ok"], true);
        control
    }

    /// A create that is answered; the connection and the reply.
    pub fn create(&self, request: &Value) -> (UnixStream, Value) {
        let mut socket = self.connect();
        socket.write_all(&request_frame(1, request)).unwrap();
        let reply = reply_of(&mut socket);
        (socket, reply)
    }

    /// A sandbox whose runner is ready.
    pub fn sandbox(&self, change: Value) -> Sandbox {
        let (socket, reply) = self.create(&create(change));
        assert_eq!(reply["ok"], true, "{reply} {}", self.logged());
        let mut sandbox = Sandbox {
            id: reply["sandbox"].as_str().unwrap().to_owned(),
            pid: i32::try_from(reply["pid"].as_i64().unwrap()).unwrap(),
            reply,
            socket: BufReader::new(socket),
        };
        assert_eq!(sandbox.ask("echo ready"), "ready");
        sandbox
    }

    /// Whatever carries this instance's name: cgroups, mounts, files.
    pub fn leftovers(&self) -> Vec<String> {
        let name = format!("cloister-{}", self.instance);
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.file_name().to_string_lossy().contains(&name) {
                        found.push(entry.path().display().to_string());
                    }
                    folders.push(entry.path());
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(
            mounts
                .lines()
                .filter(|line| {
                    line.contains(&self.instance)
                        || line.contains(self.folder.path().to_str().unwrap())
                })
                .map(str::to_owned),
        );
        if self.socket().exists() {
            found.push(self.socket().display().to_string());
        }
        found
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            let _ = self.process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logged());
        }
    }
}

fn command(folder: &Path, instance: &str, extra: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxd"));
    command
        .args(["--instance", instance, "--log-level", "debug"])
        .arg("--socket")
        .arg(folder.join("sandboxd.sock"))
        .arg("--images")
        .arg(folder.join("images"))
        .arg("--bundles")
        .arg(folder.join("bundles"))
        .args(extra);
    command
}

fn launch(folder: &Path, instance: &str, extra: &[String]) -> (Child, BufReader<ChildStdout>) {
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join("log"))
        .unwrap();
    let mut process = command(folder, instance, extra)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    (process, stdout)
}

/// A right create of image `shell`, with some fields changed; null takes one away.
pub fn create(change: Value) -> Value {
    let mut request = json!({"op": "create", "kind": "container", "image": "shell", "memoryMb": 64,
        "cpuMilli": 1000, "pids": 32, "tmpMb": 8, "label": "test"});
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            request.as_object_mut().unwrap().remove(name);
        } else {
            request[name] = value.clone();
        }
    }
    request
}

pub fn request_frame(stream: u32, request: &Value) -> Vec<u8> {
    encode_json(FrameType::Request, stream, request).unwrap()
}

/// Reads one REPLY, byte for byte, so that what follows stays in the socket.
pub fn reply_of(socket: &mut UnixStream) -> Value {
    let mut header = [0; 12];
    socket.read_exact(&mut header).unwrap();
    assert_eq!(header[8], FrameType::Reply as u8, "{header:?}");
    let length = u32::from_le_bytes(header[..4].try_into().unwrap());
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// Waits until the other side has closed.
pub fn assert_closed(mut socket: UnixStream) {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

pub struct Sandbox {
    pub id: String,
    pub pid: i32,
    pub reply: Value,
    pub socket: BufReader<UnixStream>,
}

impl Sandbox {
    pub fn run(&mut self, command: &str) {
        let socket = self.socket.get_mut();
        socket.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What a command prints, one line.
    pub fn ask(&mut self, command: &str) -> String {
        self.run(&format!("({command}) >&3 2>&3"));
        self.line()
    }

    pub fn watch(&self) -> Watched {
        Watched::of(self.pid)
    }
}

/// A process that may end.
pub struct Watched(OwnedFd);

impl Watched {
    pub fn of(pid: i32) -> Self {
        Self(pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap())
    }

    pub fn has_ended(&self) -> bool {
        self.poll(Duration::ZERO)
    }

    pub fn await_end(&self) {
        assert!(self.poll(BOUND), "a process does not end");
    }

    fn poll(&self, bound: Duration) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let bound = Timespec::try_from(bound).unwrap();
        poll(&mut fds, Some(&bound)).unwrap() > 0
    }
}

pub struct Control {
    pub socket: UnixStream,
    reader: FrameReader,
    events: VecDeque<Value>,
    replies: Vec<(u32, Value)>,
    next: u32,
}

impl Control {
    /// Sends a request; gives its number.
    pub fn send(&mut self, request: &Value) -> u32 {
        let stream = self.next;
        self.next += 1;
        self.socket
            .write_all(&request_frame(stream, request))
            .unwrap();
        stream
    }

    pub fn ask(&mut self, request: Value) -> Value {
        let stream = self.send(&request);
        self.reply(stream)
    }

    pub fn reply(&mut self, stream: u32) -> Value {
        loop {
            if let Some(at) = self.replies.iter().position(|(at, _)| *at == stream) {
                return self.replies.remove(at).1;
            }
            self.read();
        }
    }

    /// The next event of a sandbox.
    pub fn event(&mut self, sandbox: &str) -> Value {
        loop {
            let mut events = self.events.iter();
            if let Some(at) = events.position(|event| event["sandbox"] == sandbox) {
                return self.events.remove(at).unwrap();
            }
            self.read();
        }
    }

    /// The events of a sandbox that have come, without waiting.
    pub fn events_so_far(&self, sandbox: &str) -> Vec<Value> {
        let events = self.events.iter();
        events
            .filter(|event| event["sandbox"] == sandbox)
            .cloned()
            .collect()
    }

    /// Reads on until a sandbox has ended; its output until then, and its exit event.
    pub fn exit(&mut self, sandbox: &str) -> (String, Value) {
        let mut output = String::new();
        loop {
            let event = self.event(sandbox);
            match event["event"].as_str().unwrap() {
                "output" => output.push_str(event["text"].as_str().unwrap()),
                _ => return (output, event),
            }
        }
    }

    fn read(&mut self) {
        loop {
            if let Some(Frame {
                kind,
                stream,
                payload,
            }) = self.reader.next_frame().unwrap()
            {
                let value: Value = serde_json::from_slice(&payload).unwrap();
                match kind {
                    FrameType::Reply => self.replies.push((stream, value)),
                    FrameType::Event => self.events.push_back(value),
                    other => panic!("{other:?}"),
                }
                return;
            }
            assert!(self.reader.fill(&mut self.socket).unwrap(), "closed");
        }
    }
}
