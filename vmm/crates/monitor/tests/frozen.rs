//! The programs of vmm/tests/frozen: each is frozen where it says so and brought back, at once or an hour later, and says what it would have said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    dead_code,
    reason = "a failed step of a test is to end it; not everything of the shared modules is used"
)]

mod asleep;
mod compiled;
mod guest_programs;
mod hanging;
mod said;
mod written;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use asleep::wait_until_asleep;
use compiled::Made;
use guest_programs::{Kind, Program};
use serde_json::Value;
use vmm_snapshot::Snapshot;
use written::{all_stand, state_of};

const HERE: &str = "here\n";

fn monitor(verb: &str, folder: &Path, snapshot: &File) -> (Command, OwnedFd) {
    let inherited = rustix::io::dup(snapshot).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
    command.arg(verb).arg("--root").arg(folder);
    command.args(["--root", "/", "--snapshot-key", "frozen"]);
    command.args(["--snapshot-fd", &inherited.as_raw_fd().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    (command, inherited)
}

/// Runs the program until it says that it may be frozen, and freezes it then.
fn frozen(folder: &Path, name: &str) -> (File, Snapshot) {
    let file = tempfile::tempfile().unwrap();
    let (mut control, theirs) = UnixStream::pair().unwrap();
    let to_control = rustix::io::dup(&theirs).unwrap();
    drop(theirs);
    let (mut command, inherited) = monitor("run", folder, &file);
    command.args(["--control-fd", &to_control.as_raw_fd().to_string()]);
    let mut child = command.arg("--").arg(format!("/{name}")).spawn().unwrap();
    drop((to_control, inherited));
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut said).unwrap();
    assert_eq!(said, HERE);
    // Threads reach their calls when they are scheduled.
    wait_until_asleep(child.id(), 1);
    control.write_all(b"s").unwrap();
    let mut answer = String::new();
    control.read_to_string(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(child.wait().unwrap().success());
    let snapshot = state_of(&file);
    (file, snapshot)
}

/// The same when every thread stands in a system call: one that had not come to its own would wait anew after a restore, from the beginning.
fn frozen_in_calls(folder: &Path, name: &str) -> (File, Snapshot) {
    // One that is to be started, or woken once more, sleeps as well.
    for _ in 0..100 {
        let (file, snapshot) = frozen(folder, name);
        if all_stand(&snapshot) {
            return (file, snapshot);
        }
    }
    panic!("there was always a thread of {name} that stood in no call");
}

/// System calls that threads stand in.
fn calls(snapshot: &Snapshot) -> BTreeSet<u64> {
    let threads = snapshot.process.threads.iter();
    threads
        .filter_map(|t| t.call.as_ref())
        .map(|call| call.number)
        .collect()
}

/// What a program says once it goes on, and that it ends well.
fn rest(mut child: Child) -> String {
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let mut said = String::new();
    let mut from = child.stdout.take().unwrap();
    from.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

fn restored(folder: &Path, file: &File) -> String {
    let (mut command, _inherited) = monitor("restore", folder, file);
    rest(command.spawn().unwrap())
}

/// The same where the monotonic clocks are an hour further (time_namespaces(7)); the wall clock is not.
fn restored_an_hour_later(folder: &Path, file: &File) -> String {
    let (command, _inherited) = monitor("restore", folder, file);
    let mut later = Command::new("unshare");
    later.args([
        "--time",
        "--monotonic",
        "3600",
        "--boottime",
        "3600",
        "--fork",
    ]);
    later.arg(command.get_program()).args(command.get_args());
    later.stdin(Stdio::piped()).stdout(Stdio::piped());
    rest(later.spawn().unwrap())
}

/// The folder that a program is in, and what it is to say; `None` when this run only compiles.
fn provided(name: &str, is_static: bool) -> Option<(tempfile::TempDir, String)> {
    let folder = tempfile::tempdir().unwrap();
    let source = Made::of_environment();
    let name = name.to_owned();
    let program = Program { name, is_static };
    source.provide(Kind::Frozen, &program, folder.path())?;
    let expected = source.expectation(Kind::Frozen, &program).unwrap();
    Some((folder, expected))
}

fn goes_on_as_it_was(name: &str) {
    let Some((folder, expected)) = provided(name, false) else {
        return;
    };
    let (file, _) = frozen(folder.path(), name);
    // One snapshot, as often as one likes.
    for _ in 0..2 {
        let said = restored(folder.path(), &file);
        assert_eq!(said, expected, "{name}");
    }
}

/// Which the threads of `waits.c` stand in, when all of them do.
const WAITING: &[(&str, i64)] = &[
    ("read", libc::SYS_read),
    ("write", libc::SYS_write),
    ("poll", libc::SYS_poll),
    ("ppoll", libc::SYS_ppoll),
    ("pselect6", libc::SYS_pselect6),
    ("recvfrom", libc::SYS_recvfrom),
    ("recvmsg", libc::SYS_recvmsg),
    ("sendto", libc::SYS_sendto),
    ("accept4", libc::SYS_accept4),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    ("rt_sigsuspend", libc::SYS_rt_sigsuspend),
    ("futex", libc::SYS_futex),
    ("epoll_wait", libc::SYS_epoll_wait),
    ("epoll_pwait", libc::SYS_epoll_pwait),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("flock", libc::SYS_flock),
    ("fcntl", libc::SYS_fcntl),
    ("open", libc::SYS_openat),
];

#[test]
fn threads_in_every_call_that_waits_are_woken_by_what_they_wait_for() {
    let Some((folder, expected)) = provided("waits", false) else {
        return;
    };
    let (file, snapshot) = frozen_in_calls(folder.path(), "waits");
    let stood = calls(&snapshot);
    let not = WAITING
        .iter()
        .filter(|(_, number)| !stood.contains(&number.unsigned_abs()));
    let missing: Vec<_> = not.map(|(name, _)| *name).collect();
    assert!(missing.is_empty(), "no thread stood in {missing:?}");
    let (mut command, _inherited) = monitor("restore", folder.path(), &file);
    let child = command.spawn().unwrap();
    // Two wait for futexes and three by epoll, without a time and for the program's own alone: no host thread runs them until they are woken. The reactor and the
    // timers have one each.
    let expected_threads = snapshot.process.threads.len() - 5 + 2;
    let threads = wait_until_asleep(child.id(), expected_threads);
    assert_eq!(threads, expected_threads);
    assert_eq!(rest(child), expected);
}

#[test]
fn what_is_timed_is_over_an_hour_later() {
    let Some((folder, expected)) = provided("hour", false) else {
        return;
    };
    let (file, _) = frozen_in_calls(folder.path(), "hour");
    let said = restored_an_hour_later(folder.path(), &file);
    assert_eq!(said, expected);
}

#[test]
fn sockets_go_on() {
    goes_on_as_it_was("sockets");
}

#[test]
fn files_signals_limits_and_timers_are_as_they_were() {
    goes_on_as_it_was("files");
}
