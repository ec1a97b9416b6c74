//! Guests that do their worst (vmm/tests/hostile): each survives or ends as Linux would have it, and the
//! monitor neither panics nor hangs nor holds more than its limit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step of a test is to end it"
)]

mod compiled;
mod hanging;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal};

const MEMORY_MB: u64 = 256;
/// Beside the guest's memory: its /tmp, and the monitor itself with what it keeps for the guest.
const MORE_MB: u64 = 64 + 128;

fn in_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests")
        .join(path)
}

fn monitor(folder: &Path, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", &hanging::hangs_after_seconds().to_string()])
        .args([env!("CARGO_BIN_EXE_cloister-vm"), "run", "--root"])
        .arg(folder)
        .args(["--root", "/", "--memory-mb", &MEMORY_MB.to_string(), "--"])
        .arg(format!("/{program}"))
        .stdin(Stdio::null());
    command
}

/// What was said, the status, and the most memory that was held, in KiB.
fn finish(mut child: Child) -> (Output, u64) {
    let mut output = Output {
        status: std::process::ExitStatus::default(),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    let mut errors = child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        errors.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut words = child.stdout.take().unwrap();
    words.read_to_end(&mut output.stdout).unwrap();
    output.stderr = reading.join().unwrap();
    let mut status = 0;
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: both places are written by the call, which gives the resources of the child and of those it waited for.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut used), pid);
        used
    };
    output.status = std::process::ExitStatus::from_raw(status);
    (output, u64::try_from(used.ru_maxrss).unwrap())
}

fn endures(name: &str, code: i32) {
    let folder = tempfile::tempdir().unwrap();
    let source = in_tests("hostile").join(format!("{name}.c"));
    if !compiled::program("cc", &source, &[], &folder.path().join(name)) {
        return;
    }
    let child = monitor(folder.path(), name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (output, peak_kib) = finish(child);
    let errors = String::from_utf8_lossy(&output.stderr);
    let words = String::from_utf8_lossy(&output.stdout);
    let last: String = words.chars().rev().take(200).collect();
    let last: String = last.chars().rev().collect();
    // One that hangs is ended by signal 9, and so is what ends it.
    let ended = output.status;
    assert_eq!(ended.code(), Some(code), "{ended}: {last}\n{errors}");
    // Whoever comes back tells so; some of the wild calls write before.
    assert_eq!(words.ends_with("still here\n"), code == 0, "{last}");
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(
        peak_kib < (MEMORY_MB + MORE_MB) << 10,
        "{peak_kib} KiB were held"
    );
}

macro_rules! programs {
    ($($name:ident: $code:literal;)*) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                endures(stringify!($name), $code);
            }
        )*
    };
}

programs! {
    exhaustion: 0;
    frame_kills: 139;
    frames: 0;
    futexes: 0;
    machine: 0;
    maps: 0;
    maps_nothing_left: 139;
    maps_protected: 139;
    memory_full: 0;
    paths: 0;
    signals: 0;
    stack_bad_alternate: 139;
    stack_nested: 139;
    threads: 0;
    vectors: 0;
    wild_state: 0;
}

#[test]
fn every_program_is_run() {
    /// Run by tests of their own.
    const OTHERS: [&str; 3] = ["memory_limit", "spin", "wild"];
    for entry in fs::read_dir(in_tests("hostile")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".c") {
            assert!(PROGRAMS.contains(&name) || OTHERS.contains(&name), "{name}");
        }
    }
}

/// A guest that never leaves guest mode again ends when its monitor is told to.
fn ends_by(signal: Signal) {
    let folder = tempfile::tempdir().unwrap();
    let source = in_tests("hostile/spin.c");
    if !compiled::program("cc", &source, &[], &folder.path().join("spin")) {
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloister-vm"))
        .args(["run", "--root"])
        .arg(folder.path())
        .args(["--root", "/", "--", "/spin"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut words = BufReader::new(child.stdout.take().unwrap());
    words.read_line(&mut line).unwrap();
    assert_eq!(line, "spinning\n");
    let pid = Pid::from_child(&child);
    rustix::process::kill_process(pid, signal).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
}

#[test]
fn a_spinning_guest_ends_by_sigterm() {
    ends_by(Signal::TERM);
}

#[test]
fn a_spinning_guest_ends_by_sigkill() {
    ends_by(Signal::KILL);
}
