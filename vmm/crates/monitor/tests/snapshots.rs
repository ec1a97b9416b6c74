//! Runners that are frozen and brought back, as often as one likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed step of a test is to end it"
)]

mod runner;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use cloister_protocol::FrameType;
use runner::{Runner, bundle, monitor};
use serde_json::{Value, json};

/// A descriptor that a child inherits.
fn inherited(file: &impl std::os::fd::AsFd) -> OwnedFd {
    rustix::io::dup(file).unwrap()
}

fn option(command: &mut Command, name: &str, fd: &OwnedFd) {
    command.args([name, &fd.as_raw_fd().to_string()]);
}

/// A runner that can be told to be frozen.
struct Freezable {
    runner: Runner,
    control: UnixStream,
    file: File,
}

impl Freezable {
    fn start(image: &str, bundle: &Path) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let (to_control, to_file) = (inherited(&theirs), inherited(&file));
        let mut command = monitor("run", image, bundle);
        option(&mut command, "--control-fd", &to_control);
        option(&mut command, "--snapshot-fd", &to_file);
        command.args(["--snapshot-key", "test"]);
        let mut runner = Runner::spawn(command, Some(image));
        drop(theirs);
        drop((to_control, to_file));
        runner.await_frame(FrameType::Ready);
        Self {
            runner,
            control,
            file,
        }
    }

    /// The snapshot; the runner is gone then.
    fn freeze(mut self) -> File {
        self.control.write_all(b"s").unwrap();
        let mut answer = String::new();
        self.control.read_to_string(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        assert!(self.runner.process.wait().unwrap().success());
        self.file
    }
}

fn restored(image: &str, bundle: &Path, snapshot: &File, pid: u32) -> Runner {
    let file = inherited(snapshot);
    let mut command = monitor("restore", image, bundle);
    option(&mut command, "--snapshot-fd", &file);
    command.args(["--snapshot-key", "test", "--pid", &pid.to_string()]);
    Runner::spawn(command, None)
}

const NODE: &str = "
    let calls = 0;
    export async function handler(event) {
        return { calls: ++calls, said: event.say, pid: process.pid };
    }
";
const PYTHON: &str = "
import os
calls = 0
def handler(event, context):
    global calls
    calls += 1
    return {'calls': calls, 'said': event['say'], 'pid': os.getpid()}
";

fn call(runner: &mut Runner, stream: u32, say: &str) -> Value {
    let (status, body) = runner.call(stream, &json!({"say": say}));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn a_runner_without_function_is_brought_back(image: &str, entry: &str, source: &str) {
    let empty = tempfile::tempdir().unwrap();
    let snapshot = Freezable::start(image, empty.path()).freeze();
    let bundle = bundle(entry, source);
    for pid in [100, 200] {
        let mut runner = restored(image, bundle.path(), &snapshot, pid);
        runner.init(entry);
        for count in 1..=2 {
            let answer = call(&mut runner, count, "hello");
            assert_eq!(answer, json!({"calls": count, "said": "hello", "pid": pid}));
        }
        runner.finish();
    }
}

fn a_function_is_brought_back(image: &str, entry: &str, source: &str) {
    let bundle = bundle(entry, source);
    let mut freezable = Freezable::start(image, bundle.path());
    freezable.runner.init(entry);
    call(&mut freezable.runner, 1, "warm");
    let snapshot = freezable.freeze();
    // All at once, and none knows of the others.
    let mut clones: Vec<Runner> = (0..3)
        .map(|number| restored(image, bundle.path(), &snapshot, 300 + number))
        .collect();
    for round in 0..2 {
        for (number, runner) in (0..).zip(&mut clones) {
            let say = format!("{number}.{round}");
            let answer = call(runner, 2 + round, &say);
            assert_eq!(
                answer,
                json!({"calls": 2 + round, "said": say, "pid": 300 + number})
            );
        }
    }
    clones.into_iter().for_each(Runner::finish);
}

#[test]
fn node_without_a_function() {
    a_runner_without_function_is_brought_back("node24", "index.mjs", NODE);
}

#[test]
fn python_without_a_function() {
    a_runner_without_function_is_brought_back("python3", "main.py", PYTHON);
}

#[test]
fn a_function_of_node() {
    a_function_is_brought_back("node24", "index.mjs", NODE);
}

#[test]
fn a_function_of_python() {
    a_function_is_brought_back("python3", "main.py", PYTHON);
}
