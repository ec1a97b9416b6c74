//! The runners of the images, unmodified, in the micro-VM: each answers requests over the socket at 3.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed step of a test is to end it"
)]

use std::fs;
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

/// A runner that serves the only file of a bundle.
struct Runner {
    process: Child,
    frames: FrameReader,
    writer: FrameWriter<UnixStream>,
    socket: UnixStream,
    _bundle: tempfile::TempDir,
}

impl Runner {
    fn start(image: &str, entry: &str, source: &str) -> Self {
        let manifest = images().join(format!("{image}.json"));
        let manifest = fs::read(&manifest).expect("make the images: ./cloister setup");
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join(entry), source).unwrap();

        let (socket, theirs) = UnixStream::pair().unwrap();
        // A duplicate that the child inherits; Rust's own are closed on exec.
        let inherited = rustix::io::dup(&theirs).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
        command.arg("run").stdin(Stdio::null());
        for layer in manifest["layers"].as_array().unwrap() {
            let folder = images().join("layers").join(layer.as_str().unwrap());
            command.arg("--root").arg(folder);
        }
        let bind = format!("{}:/fn:ro", bundle.path().display());
        command.args(["--bind", &bind]);
        for (name, value) in manifest["runner"]["env"].as_object().unwrap() {
            let variable = format!("{name}={}", value.as_str().unwrap());
            command.args(["--env", &variable]);
        }
        command.args(["--memory-mb", &MEMORY_MB.to_string()]);
        command.args(["--fd3", &inherited.as_raw_fd().to_string(), "--"]);
        for word in manifest["runner"]["argv"].as_array().unwrap() {
            let word = word.as_str().unwrap();
            command.arg(word.replace("{memoryMb}", &MEMORY_MB.to_string()));
        }
        let process = command.spawn().unwrap();
        drop::<(UnixStream, OwnedFd)>((theirs, inherited));

        let mut runner = Self {
            process,
            frames: FrameReader::new(|_| true),
            writer: FrameWriter::new(socket.try_clone().unwrap()),
            socket,
            _bundle: bundle,
        };
        runner.await_frame(FrameType::Ready);
        let init = json!({"function": "hello", "version": 1, "entry": entry, "root": "/fn", "env": {},
            "memoryMb": MEMORY_MB, "timeoutMs": 60_000, "seed": "", "nowMs": 0});
        runner.writer.send_json(FrameType::Init, 0, &init).unwrap();
        let done = runner.await_frame(FrameType::InitDone);
        let done: Value = serde_json::from_slice(&done.payload).unwrap();
        assert_eq!(done["ok"], true, "{done}");
        runner
    }

    /// The next frame, which must be of that kind.
    fn await_frame(&mut self, kind: FrameType) -> Frame {
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

    /// Status and body of the answer to an event.
    fn call(&mut self, stream: u32, event: &Value) -> (u64, String) {
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
        let head = self.await_frame(FrameType::Head);
        let head: Value = serde_json::from_slice(&head.payload).unwrap();
        let body = self.await_frame(FrameType::Data).payload;
        self.await_frame(FrameType::End);
        let body = String::from_utf8(body).unwrap();
        (head["status"].as_u64().unwrap(), body)
    }

    /// Ends the runner as its owner does, by end of file.
    fn finish(mut self) {
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

const NODE: &str = "
    import { createHash } from 'node:crypto';
    import { gunzipSync, gzip } from 'node:zlib';
    import { promisify } from 'node:util';
    export async function handler(event) {
        const packed = await promisify(gzip)(event.text.repeat(1000));
        const text = gunzipSync(packed).toString();
        return { length: text.length, sha: createHash('sha256').update(text).digest('hex').slice(0, 8) };
    }
";
const PYTHON: &str = "
import hashlib, zlib
def handler(event, context):
    text = zlib.decompress(zlib.compress(event['text'].encode() * 1000))
    return {'length': len(text), 'sha': hashlib.sha256(text).hexdigest()[:8]}
";

fn answers_requests(image: &str, entry: &str, source: &str) {
    let mut runner = Runner::start(image, entry, source);
    for stream in 1..=3 {
        let (status, body) = runner.call(stream, &json!({"text": "abc"}));
        let body: Value = serde_json::from_str(&body).unwrap();
        // Of `abc` a thousand times, as sha256sum(1) has it.
        let expected = json!({"length": 3000, "sha": "328de8f1"});
        assert_eq!((status, body), (200, expected));
    }
    runner.finish();
}

#[test]
fn the_node_runner_answers_requests() {
    answers_requests("node24", "index.mjs", NODE);
}

#[test]
fn the_python_runner_answers_requests() {
    answers_requests("python3", "main.py", PYTHON);
}
