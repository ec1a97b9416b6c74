//! The programs of vmm/tests: where they come from, how they are compiled, and what a run of one says.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::compiled::{Made, copy};
use crate::hanging::hangs_after_seconds;

/// A folder of vmm/tests: `guests` run on Linux, too; `hostile` do not; `frozen` are frozen and brought back;
/// those of `host` need something of a host beside them.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "each test has its own kind")]
pub enum Kind {
    Guests,
    Hostile,
    Frozen,
    Host,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Guests => "guests",
            Self::Hostile => "hostile",
            Self::Frozen => "frozen",
            Self::Host => "host",
        }
    }
}

/// One program, linked one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    pub name: String,
    pub is_static: bool,
}

impl Program {
    /// As tests name it.
    pub fn title(&self) -> String {
        let how = if self.is_static { " (static)" } else { "" };
        format!("{}{how}", self.name)
    }

    fn stored(&self, kind: Kind) -> String {
        let how = if self.is_static { "-static" } else { "" };
        format!("{}-{}{how}", kind.folder(), self.name)
    }
}

impl Made {
    /// All programs of a folder, both ways. None is named anywhere, so that none can be forgotten.
    pub fn programs(&self, kind: Kind) -> Vec<Program> {
        let mut list: Vec<Program> = match self {
            Self::Before(folder) => names(folder)
                .filter_map(|name| {
                    let name = name.strip_prefix(kind.folder())?.strip_prefix('-')?;
                    // An expectation has an extension, a program has none.
                    (!name.contains('.')).then(|| match name.strip_suffix("-static") {
                        Some(name) => Program {
                            name: name.to_owned(),
                            is_static: true,
                        },
                        None => Program {
                            name: name.to_owned(),
                            is_static: false,
                        },
                    })
                })
                .collect(),
            Self::Here | Self::ForOthers(_) => names(&sources(kind))
                .filter_map(|name| name.strip_suffix(".c").map(str::to_owned))
                .flat_map(|name| {
                    [false, true].map(|is_static| Program {
                        name: name.clone(),
                        is_static,
                    })
                })
                .collect(),
        };
        list.sort();
        assert!(!list.is_empty(), "{} has no programs", kind.folder());
        list
    }

    /// Puts the program into `folder`, under its own name; `None` when compiling is all that is wanted.
    pub fn provide(&self, kind: Kind, program: &Program, folder: &Path) -> Option<PathBuf> {
        let target = folder.join(&program.name);
        match self {
            Self::Here => compile(kind, program, &target),
            Self::ForOthers(into) => {
                compile(kind, program, &into.join(program.stored(kind)));
                if let Some(expected) = self.expectation(kind, program) {
                    let name = format!("{}.expected", program.stored(kind));
                    std::fs::write(into.join(name), expected).unwrap();
                }
                return None;
            }
            Self::Before(made) => {
                copy(&made.join(program.stored(kind)), &target);
            }
        }
        Some(target)
    }

    /// What it is to print where that is not for Linux to say.
    pub fn expectation(&self, kind: Kind, program: &Program) -> Option<String> {
        let path = match self {
            Self::Before(made) => made.join(format!("{}.expected", program.stored(kind))),
            Self::Here | Self::ForOthers(_) => {
                sources(kind).join(format!("{}.expected", program.name))
            }
        };
        path.exists()
            .then(|| std::fs::read_to_string(&path).unwrap())
    }
}

fn sources(kind: Kind) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests")
        .join(kind.folder())
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

fn compile(kind: Kind, program: &Program, target: &Path) {
    let source = sources(kind).join(format!("{}.c", program.name));
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(target)
        .arg(&source)
        .args(program.is_static.then_some("-static"))
        .output()
        .expect("a C compiler is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", program.title());
}

/// How a run ended, and what it printed.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    /// 128 and the signal's number when a signal ended it.
    pub code: i32,
}

/// Runs the program on this Linux.
pub fn run_here(program: &Path) -> Said {
    run(Command::new(program))
}

/// Runs it in the micro-VM with the machine's own root beneath, for its C library.
pub fn run_in_vm(folder: &Path, options: &[&str], program: &Program) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
    command
        .args(["run", "--stats", "--root"])
        .arg(folder)
        .args(["--root", "/"])
        .args(options)
        .arg("--")
        .arg(format!("/{}", program.name));
    run(command)
}

fn run(mut command: Command) -> Said {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (stdout, stderr, code) = std::thread::scope(|scope| {
        let texts = [
            scope.spawn(move || read_all(stdout)),
            scope.spawn(move || read_all(stderr)),
        ];
        let code = ended(&mut child);
        let [stdout, stderr] = texts.map(|text| text.join().unwrap());
        (stdout, stderr, code)
    });
    Said {
        stdout,
        stderr,
        code,
    }
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ended(child: &mut Child) -> i32 {
    let hangs_after = Timespec {
        tv_sec: hangs_after_seconds().into(),
        tv_nsec: 0,
    };
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let mut wait = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    if poll(&mut wait, Some(&hangs_after)).unwrap() == 0 {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let signal = status.signal().map(|signal| signal.saturating_add(128));
    status.code().or(signal).unwrap()
}
