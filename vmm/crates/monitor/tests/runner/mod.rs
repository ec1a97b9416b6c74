//! A runner of an image in a micro-VM, and the worker's side of its conversation.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cloister_protocol::{Frame, FrameReader, FrameType, FrameWriter};
use serde_json::{Value, json};

const MEMORY_MB: u64 = 256;

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.cloister/images")
}

/// What an image says of its runner.
pub fn manifest(image: &str) -> Value {
    let manifest = images().join(format!("{image}.json"));
    let manifest = fs::read(&manifest).expect("make the images: ./cloister setup");
    serde_json::from_slice(&manifest).unwrap()
}

/// A bundle of one file.
pub fn bundle(entry: &str, source: &str) -> tempfile::TempDir {
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join(entry), source).unwrap();
    bundle
}

/// `cloister-vm VERB` over an image and a bundle.
pub fn monitor(verb: &str, image: &str, bundle: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
    command.arg(verb).stdin(Stdio::null());
    for layer in manifest(image)["layers"].as_array().unwrap() {
        let folder = images().join("layers").join(layer.as_str().unwrap());
        command.arg("--root").arg(folder);
    }
    let bind = format!("{}:/fn:ro", bundle.display());
    command.args(["--bind", &bind, "--memory-mb", &MEMORY_MB.to_string()]);
    command
}

/// Adds what a cold start needs: the environment and the program of the image.
pub fn add_program(command: &mut Command, image: &str) {
    let manifest = manifest(image);
    for (name, value) in manifest["runner"]["env"].as_object().unwrap() {
        let variable = format!("{name}={}", value.as_str().unwrap());
        command.args(["--env", &variable]);
    }
    command.arg("--");
    for word in manifest["runner"]["argv"].as_array().unwrap() {
        let word = word.as_str().unwrap();
        command.arg(word.replace("{memoryMb}", &MEMORY_MB.to_string()));
    }
}

/// A runner that serves the only file of a bundle.
pub struct Runner {
    pub process: Child,
    frames: FrameReader,
    writer: FrameWriter<UnixStream>,
    socket: UnixStream,
}

impl Runner {
    /// Starts the monitor, with a socket at 3; `program` is given when it starts cold.
    pub fn spawn(mut command: Command, program: Option<&str>) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        // A duplicate that the child inherits; Rust's own are closed on exec.
        let inherited = rustix::io::dup(&theirs).unwrap();
        command.args(["--fd3", &inherited.as_raw_fd().to_string()]);
        if let Some(image) = program {
            add_program(&mut command, image);
        }
        let process = command.spawn().unwrap();
        drop::<(UnixStream, OwnedFd)>((theirs, inherited));
        Self {
            process,
            frames: FrameReader::new(|_| true),
            writer: FrameWriter::new(socket.try_clone().unwrap()),
            socket,
        }
    }

    /// Starts a monitor that waits; it, and what it is to be given for 3.
    #[allow(dead_code, reason = "not every test's monitor waits")]
    pub fn waiting(mut command: Command) -> (Self, OwnedFd) {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let runner = Self {
            process: command.spawn().unwrap(),
            frames: FrameReader::new(|_| true),
            writer: FrameWriter::new(socket.try_clone().unwrap()),
            socket,
        };
        (runner, OwnedFd::from(theirs))
    }

    /// Tells a restored runner what it is now.
    #[allow(dead_code, reason = "not every test restores")]
    pub fn renew(&mut self, pid: u32) {
        let restored = json!({"seed": "c2VlZCBvZiBhIHRlc3Q=", "nowMs": 0, "pid": pid});
        self.writer
            .send_json(FrameType::Restored, 0, &restored)
            .unwrap();
        self.await_frame(FrameType::Ready);
    }

    /// Throws away what comes until the mark has come.
    #[allow(dead_code, reason = "not every test resets")]
    pub fn await_mark(&mut self, mark: &[u8]) {
        self.frames = FrameReader::new(|_| true);
        let mut seen = Vec::new();
        let mut byte = [0; 4096];
        while !seen.ends_with(mark) {
            let count = self.socket.read(&mut byte).unwrap();
            assert!(count > 0, "the runner ended: {:?}", self.process.wait());
            seen.extend_from_slice(&byte[..count]);
            let rest = seen
                .len()
                .saturating_sub(mark.len().saturating_add(byte.len()));
            seen.drain(..rest);
        }
    }

    /// The worker's end of the conversation, as bytes.
    #[allow(dead_code, reason = "not every test speaks for itself")]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Has the function loaded.
    #[allow(dead_code, reason = "not every test has a function that is not frozen")]
    pub fn init(&mut self, entry: &str) {
        self.init_with(entry, None);
    }

    /// The same for a function that is to be frozen, which the runner prepares for that.
    #[allow(dead_code, reason = "not every test freezes a function")]
    pub fn init_to_be_frozen(&mut self, entry: &str) {
        self.init_with(entry, Some(json!({"warmTurns": 0})));
    }

    fn init_with(&mut self, entry: &str, snapshot: Option<Value>) {
        let mut init = json!({"function": "hello", "version": 1, "entry": entry, "root": "/fn", "env": {},
            "memoryMb": MEMORY_MB, "timeoutMs": 60_000, "seed": "", "nowMs": 0});
        if let Some(snapshot) = snapshot {
            init["snapshot"] = snapshot;
        }
        self.writer.send_json(FrameType::Init, 0, &init).unwrap();
        let done = self.await_frame(FrameType::InitDone);
        let done: Value = serde_json::from_slice(&done.payload).unwrap();
        assert_eq!(done["ok"], true, "{done}");
    }

    /// The next frame, which must be of that kind.
    pub fn await_frame(&mut self, kind: FrameType) -> Frame {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                let text = String::from_utf8_lossy(&frame.payload);
                assert_eq!(frame.kind, kind, "{text}");
                return frame;
            }
            let more = self.frames.fill(&mut self.socket).unwrap();
            assert!(more, "the runner ended: {:?}", self.process.wait());
        }
    }

    /// Reads until the other end can say no more.
    #[allow(dead_code, reason = "not every test resets")]
    pub fn await_end_of_file(&mut self) {
        let mut bytes = [0; 4096];
        while self.socket.read(&mut bytes).unwrap() > 0 {}
    }

    /// Status and body of the answer to an event.
    pub fn call(&mut self, stream: u32, event: &Value) -> (u64, String) {
        self.start(stream, event);
        let head = self.await_frame(FrameType::Head);
        let head: Value = serde_json::from_slice(&head.payload).unwrap();
        let body = self.await_frame(FrameType::Data).payload;
        self.await_frame(FrameType::End);
        let body = String::from_utf8(body).unwrap();
        (head["status"].as_u64().unwrap(), body)
    }

    /// Sends an event.
    pub fn start(&mut self, stream: u32, event: &Value) {
        let head = json!({"id": format!("inv_{stream}"), "kind": "event", "method": "POST",
            "url": "http://localhost/", "path": "/", "headers": [], "deadlineMs": 60_000, "hasBody": true});
        let body = event.to_string();
        self.writer
            .send_json(FrameType::Invoke, stream, &head)
            .unwrap();
        self.writer
            .send(FrameType::Data, stream, body.as_bytes())
            .unwrap();
        self.writer.send(FrameType::End, stream, &[]).unwrap();
    }

    /// Ends the runner as its owner does, by end of file.
    #[allow(dead_code, reason = "not every test cares how it ends")]
    pub fn finish(mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
