//! What a run of a program says, how it ends, and how two of them differ.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::hanging::hangs_after_seconds;

/// How a run ended, and what it printed.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub status: ExitStatus,
    /// After how many seconds it was taken to hang, and killed, if it was.
    pub hung_seconds: Option<u32>,
}

impl Said {
    /// What a run that ends well is to say.
    pub fn well(stdout: String) -> Self {
        Self {
            stdout,
            stderr: String::new(),
            status: ExitStatus::default(),
            hung_seconds: None,
        }
    }

    /// The status as a shell tells it, and a monitor its guest's: 128 and the signal's number when a signal ended it.
    pub fn code(&self) -> i32 {
        let signal = || Some(self.status.signal()?.saturating_add(128));
        self.status.code().or_else(signal).unwrap()
    }

    /// How it ended, in words that tell a signal of the process itself from a status that stands for one.
    pub fn end(&self) -> String {
        let status = self.status;
        self.hung_seconds.map_or_else(
            || status.to_string(),
            |seconds| format!("{status}: it was taken to hang after {seconds} s"),
        )
    }
}

/// Runs it to its end; kills it when it is taken to hang.
pub fn run(command: Command) -> Said {
    run_at_most(command, hangs_after_seconds())
}

/// The same with a bound of one's own.
pub fn run_at_most(mut command: Command, seconds: u32) -> Said {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        let texts = [
            scope.spawn(move || read_all(stdout)),
            scope.spawn(move || read_all(stderr)),
        ];
        let (status, hung) = ended(&mut child, seconds);
        let [stdout, stderr] = texts.map(|text| text.join().unwrap());
        Said {
            stdout,
            stderr,
            status,
            hung_seconds: hung.then_some(seconds),
        }
    })
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How it ended, and whether it was killed because it had not after so many seconds.
fn ended(child: &mut Child, seconds: u32) -> (ExitStatus, bool) {
    let hangs_after = Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let mut wait = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    let hangs = poll(&mut wait, Some(&hangs_after)).unwrap() == 0;
    if hangs {
        child.kill().unwrap();
    }
    (child.wait().unwrap(), hangs)
}

/// How a run in the micro-VM differs from what is expected, with its end and its last words; `None` when it does not.
/// One that hangs is as nothing is expected to be, also where the other hangs, too.
pub fn difference(expected: &Said, vm: &Said) -> Option<String> {
    let hangs = expected.hung_seconds.or(vm.hung_seconds).is_some();
    let says_the_same = expected.stdout == vm.stdout;
    if says_the_same && expected.code() == vm.code() && !hangs {
        return None;
    }
    let ends = format!("it ends with {}, expected {}\n", vm.end(), expected.end());
    let lines = if says_the_same {
        String::new()
    } else {
        first_difference(&expected.stdout, &vm.stdout)
    };
    Some(ends + &lines + &vm.stderr)
}

/// Which lines differ, up to ten of them, with the number each has.
fn first_difference(expected: &str, got: &str) -> String {
    let lines = |text: &str| text.split('\n').map(str::to_owned).collect::<Vec<_>>();
    let (expected, got) = (lines(expected), lines(got));
    let line = |lines: &[String], at: usize| lines.get(at).map_or("(end)", |line| line).to_owned();
    (0..expected.len().max(got.len()))
        .filter(|at| expected.get(*at) != got.get(*at))
        .take(10)
        .map(|at| {
            let number = at.saturating_add(1);
            format!(
                "line {number}: {}, expected {}\n",
                line(&got, at),
                line(&expected, at)
            )
        })
        .collect()
}
