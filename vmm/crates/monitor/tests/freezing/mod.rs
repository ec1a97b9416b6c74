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

/// A runner that can be told to be frozen.
pub struct Freezable {
    pub runner: Runner,
    control: UnixStream,
    pub file: File,
}

impl Freezable {
    pub fn start(image: &str, bundle: &Path) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let (to_control, to_file) = (inherited(&theirs), inherited(&file));
        let mut command = monitor("run", image, bundle);
        option(&mut command, "--control-fd", &to_control);
        option(&mut command, "--snapshot-fd", &to_file);
        command.args(["--snapshot-key", "test"]);
        let mut runner = Runner::spawn(command, Some(image));
        drop((theirs, to_control, to_file));
        runner.await_frame(FrameType::Ready);
        Self {
            runner,
            control,
            file,
        }
    }

    /// Has it frozen; what the monitor says of that.
    pub fn answer(&mut self) -> Value {
        self.control.write_all(b"s").unwrap();
        let mut answer = String::new();
        self.control.read_to_string(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// The snapshot; the runner is gone then.
    pub fn freeze(mut self) -> File {
        let answer = self.answer();
        assert_eq!(answer["ok"], true, "{answer}");
        assert!(self.runner.process.wait().unwrap().success());
        self.file
    }
}

/// A snapshot of a runner, after something has been done with it.
pub fn frozen(image: &str, bundle: &Path, first: impl FnOnce(&mut Runner)) -> File {
    let mut freezable = Freezable::start(image, bundle);
    first(&mut freezable.runner);
    freezable.freeze()
}
