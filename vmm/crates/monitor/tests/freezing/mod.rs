//! Runners that are frozen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use cloister_protocol::FrameType;
use serde_json::Value;

use crate::runner::{Runner, monitor};

/// A descriptor that a child inherits.
pub fn inherited(file: &impl std::os::fd::AsFd) -> OwnedFd {
    rustix::io::dup(file).unwrap()
}

pub fn option(command: &mut Command, name: &str, fd: &OwnedFd) {
    command.args([name, &fd.as_raw_fd().to_string()]);
}

/// A snapshot of a runner, after something has been done with it.
pub fn frozen(image: &str, bundle: &Path, first: impl FnOnce(&mut Runner)) -> File {
    let (mut control, theirs) = UnixStream::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    let (to_control, to_file) = (inherited(&theirs), inherited(&file));
    let mut command = monitor("run", image, bundle);
    option(&mut command, "--control-fd", &to_control);
    option(&mut command, "--snapshot-fd", &to_file);
    command.args(["--snapshot-key", "test"]);
    let mut runner = Runner::spawn(command, Some(image));
    drop((theirs, to_control, to_file));
    runner.await_frame(FrameType::Ready);
    first(&mut runner);
    control.write_all(b"s").unwrap();
    let mut answer = String::new();
    control.read_to_string(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(runner.process.wait().unwrap().success());
    file
}
