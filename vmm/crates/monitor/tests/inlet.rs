//! What a guest reads from the socket at 3, by whichever way, is what a program on Linux reads there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    dead_code,
    reason = "a failed step of a test is to end it; not everything of the shared modules is used"
)]

mod compiled;
mod guest_programs;
mod hanging;
mod said;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use compiled::Made;
use guest_programs::{Kind, Program};

/// Runs a program with a socket whose other end sends back what it gets, and ends when nothing more comes. `start` answers with it what is to stay open
/// until it has started.
fn with_echo(start: impl FnOnce(OwnedFd) -> (Command, Option<OwnedFd>)) -> Output {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (mut command, inherited) = start(theirs.into());
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((command, inherited));
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = ours.read(&mut bytes) {
            // A program that failed is gone.
            if ours.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = ours.shutdown(Shutdown::Both);
    });
    let output = child.wait_with_output().unwrap();
    echo.join().unwrap();
    output
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{error}", output.status);
    text
}

#[test]
fn a_guest_reads_its_socket_as_on_linux() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program {
        name: "reads".into(),
        is_static: true,
    };
    let source = Made::of_environment();
    let Some(path) = source.provide(Kind::Host, &program, folder.path()) else {
        return;
    };
    let here = with_echo(|socket| {
        let mut command = Command::new(&path);
        command.arg("here").stdin(socket);
        (command, None)
    });
    let in_vm = |options: &[&str]| {
        with_echo(|socket| {
            let inherited = rustix::io::dup(&socket).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
            command.arg("run").arg("--root").arg(folder.path());
            command.args(["--fd3", &inherited.as_raw_fd().to_string()]);
            command.args(options).args(["--", "/reads"]);
            command.stdin(Stdio::null());
            (command, Some(inherited))
        })
    };
    let expected = said(&here);
    assert_eq!(said(&in_vm(&[])), expected);
    // Nothing is served within a guest that is traced.
    assert_eq!(said(&in_vm(&["--strace"])), expected);
}
