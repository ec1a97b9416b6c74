//! The C programs of vmm/tests: where they come from, how they are compiled, and a run of one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compiled::{Made, copy};
use crate::said::{Said, run};

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
