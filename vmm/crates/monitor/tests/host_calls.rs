//! The list of host calls (vmm/resources/seccomp/monitor.json) against those that the monitor makes: a call that is missing ends the
//! programs, and a rule that no program needs is found here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

mod recorder;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use recorder::{Call, record};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Filter {
    filter: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    syscall: String,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    index: usize,
    r#type: String,
    op: Value,
    val: u64,
    comment: String,
}

impl Condition {
    fn holds(&self, call: &Call) -> bool {
        let word = call.args[self.index];
        let word = match self.r#type.as_str() {
            "dword" => word & 0xffff_ffff,
            _ => word,
        };
        match &self.op {
            Value::String(op) if op == "eq" => word == self.val,
            Value::Object(op) => word & op["masked_eq"].as_u64().unwrap() == self.val,
            other => panic!("the test does not know {other}"),
        }
    }
}

impl Rule {
    fn name(&self) -> String {
        let conditions: Vec<&str> = self.args.iter().map(|one| one.comment.as_str()).collect();
        format!("{} {}", self.syscall, conditions.join(", "))
            .trim()
            .to_owned()
    }

    fn allows(&self, number: i32, call: &Call) -> bool {
        call.number == number && self.args.iter().all(|one| one.holds(call))
    }
}

/// Rules that cannot be seen to be needed, and why they are there all the same.
const UNSEEN: [(&str, &str); 21] = [
    ("guest clone3", "answered by the list before it"),
    (
        "guest read",
        "libc's, once, when the heap of a thread other than the first has shrunk by megabytes",
    ),
    (
        "guest exit",
        "a host thread ends only when sixteen others have no work",
    ),
    (
        "guest restart_syscall",
        "made by the kernel, after a stop that a test cannot place",
    ),
    (
        "guest ioctl KVM_GET_VCPU_EVENTS",
        "only when a kick comes in the middle of an exception",
    ),
    (
        "guest ioctl KVM_SET_VCPU_EVENTS",
        "only when a kick comes in the middle of an exception",
    ),
    ("reactor sched_yield", "of locks, when two threads meet"),
    (
        "reactor clock_gettime",
        "of locks, on a host whose vDSO does not give the time",
    ),
    (
        "reactor futex",
        "of locks, when two threads meet, and of those who wait",
    ),
    (
        "reactor mmap never PROT_EXEC: only guest page tables know it",
        ALLOCATES,
    ),
    (
        "reactor mprotect never PROT_EXEC: only guest page tables know it",
        ALLOCATES,
    ),
    (
        "reactor sendmsg",
        "answers to orders, which only what was brought back gets (resets.rs)",
    ),
    ("reactor munmap", ALLOCATES),
    ("reactor madvise", ALLOCATES),
    ("reactor brk", ALLOCATES),
    ("reactor write standard error", FAILS),
    ("reactor tgkill", FAILS),
    ("reactor gettid", FAILS),
    ("reactor getpid", FAILS),
    ("reactor rt_sigprocmask", FAILS),
    ("reactor exit_group", FAILS),
];
const ALLOCATES: &str = "depends on how the allocator's room lies";
const FAILS: &str = "the last words and the end of a monitor that fails";

/// Of vmm/tests/guests.
const PROGRAMS: [&str; 8] = [
    "memory",
    "signals",
    "threads",
    "files",
    "files_data",
    "events",
    "time",
    "process",
];

/// System calls by name, as the C compiler knows them.
fn numbers() -> HashMap<String, i32> {
    let output = Command::new("cc")
        .args([
            "-E",
            "-dM",
            "-x",
            "c",
            "-include",
            "sys/syscall.h",
            "/dev/null",
        ])
        .output()
        .expect("a C compiler is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        })
        .collect()
}

/// What the monitor did for one guest, by role.
fn calls_of(command: &mut Command) -> Vec<(&'static str, Call)> {
    let recorded = record(command);
    let calls = recorded.calls;
    // The programs may end as they like, the monitor may not: SIGSYS comes of a call that is not on the list.
    assert_eq!(
        recorded.status.signal(),
        None,
        "said {:?} after {:?}",
        recorded.stderr.lines().rev().take(5).collect::<Vec<_>>(),
        calls.last_chunk::<4>()
    );
    let seccomp = i32::try_from(libc::SYS_seccomp).unwrap();
    let first = calls.first().expect("some calls").tid;
    // The first thread installs a filter, the reactor one of its own, before it.
    let mut installed: HashMap<i32, u32> = HashMap::new();
    let mut reactor = None;
    let mut after = Vec::new();
    for call in calls {
        let count = installed.entry(call.tid).or_default();
        if call.number == seccomp {
            *count += 1;
            reactor = reactor.or((call.tid != first).then_some(call.tid));
        } else if Some(call.tid) == reactor {
            if *count == 1 {
                after.push(("reactor", call));
            }
        } else if installed.get(&first).is_some_and(|count| *count == 1) {
            after.push(("guest", call));
        }
    }
    after
}

/// Compiles a program; its path inside.
fn build(sources: &Path, name: &str, folder: &Path) -> String {
    let built = Command::new("cc")
        .args(["-O1", "-Wno-unused-result", "-pthread", "-o"])
        .arg(folder.join(name))
        .arg(sources.join(format!("{name}.c")))
        .status()
        .expect("a C compiler is installed");
    assert!(built.success());
    format!("/{name}")
}

/// vmm/tests/host/streams.c, with an echo at the other end of its socket.
fn calls_of_streams(tests: &Path, folder: &Path) -> Vec<(&'static str, Call)> {
    let program = build(&tests.join("host"), "streams", folder);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
    let number = theirs.as_raw_fd().to_string();
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(ours.read(&mut byte), Ok(1)) {
            // The program may have ended with what it was told.
            if ours.write_all(&byte).is_err() {
                break;
            }
        }
    });
    let calls = calls_of(&mut monitor(folder, &["--fd3", &number], &program));
    drop(theirs);
    echo.join().unwrap();
    calls
}

/// A descriptor that a child inherits, and its number.
fn inherited(file: &impl std::os::fd::AsFd) -> (OwnedFd, String) {
    let fd = rustix::io::dup(file).unwrap();
    let number = fd.as_raw_fd().to_string();
    (fd, number)
}

/// vmm/tests/host/waits.c, frozen, brought back and put back once.
fn calls_of_reset(tests: &Path, folder: &Path) -> Vec<(&'static str, Call)> {
    let program = build(&tests.join("host"), "waits", folder);
    let snapshot = inherited(&tempfile::tempfile().unwrap());
    let (mut stream, theirs) = UnixStream::pair().unwrap();
    let (mut control, at) = UnixStream::pair().unwrap();
    let (theirs, at) = (inherited(&theirs), inherited(&at));
    let given = [
        "--fd3",
        &theirs.1,
        "--control-fd",
        &at.1,
        "--snapshot-fd",
        &snapshot.1,
    ];
    let mut run = monitor(folder, &given, &program).spawn().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    control.write_all(b"s").unwrap();
    assert!(run.wait().unwrap().success());
    drop((theirs, at));

    let (mut stream, theirs) = UnixStream::pair().unwrap();
    let (mut control, at) = UnixStream::pair().unwrap();
    let (theirs, at) = (inherited(&theirs), inherited(&at));
    let mut restore = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
    restore.arg("restore").arg("--root").arg(folder);
    restore.args(["--root", "/", "--fd3", &theirs.1, "--control-fd", &at.1]);
    restore.args(["--snapshot-fd", &snapshot.1]);
    let asker = std::thread::spawn(move || {
        let order = b"{\"pid\": 7, \"mark\": \"6d61726b\"}\n";
        control.write_all(order).unwrap();
        let mut mark = [0; 4];
        stream.read_exact(&mut mark).unwrap();
        assert_eq!(&mark, b"mark");
        let mut answer = [0; 11];
        control.read_exact(&mut answer).unwrap();
        // It goes on where it stood, and ends with its socket.
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        control
    });
    let calls = calls_of(&mut restore);
    drop((theirs, at));
    asker.join().unwrap();
    calls
}

fn monitor(folder: &Path, more: &[&str], program: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
    command
        .args(["run", "--strace", "--root"])
        .arg(folder)
        .args(["--root", "/"])
        .args(more)
        .args(["--", program, "/tmp"]);
    command
}

#[test]
fn every_rule_is_needed_and_every_need_has_a_rule() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for name in PROGRAMS {
        let program = build(&tests.join("guests"), name, folder.path());
        let mut command = monitor(folder.path(), &[], &program);
        seen.extend(calls_of(&mut command));
    }
    seen.extend(calls_of_streams(&tests, folder.path()));
    seen.extend(calls_of_reset(&tests, folder.path()));
    let list = include_str!("../../../resources/seccomp/monitor.json");
    let filters: HashMap<String, Filter> = serde_json::from_str(list).unwrap();
    let numbers = numbers();
    let mut needless = Vec::new();
    for role in ["guest", "reactor"] {
        for rule in &filters[role].filter {
            let number = numbers[&rule.syscall];
            let used = seen
                .iter()
                .any(|(who, call)| *who == role && rule.allows(number, call));
            let name = format!("{role} {}", rule.name());
            if !used && !UNSEEN.iter().any(|(unseen, _)| *unseen == name) {
                needless.push(name);
            }
        }
    }
    assert!(needless.is_empty(), "no program needs {needless:#?}");
}
