//! Programs for guests, compiled as the tests run, or before on another machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A machine without a compiler gets the programs from one that has it: there the tests run with the
/// first variable and only compile, into the folder it names; here with the second, and take them from it.
const COMPILE_INTO: &str = "CLOISTER_GUESTS_COMPILE_INTO";
const COMPILED_IN: &str = "CLOISTER_GUESTS_COMPILED_IN";

/// Where the programs are that a test runs.
#[derive(Debug)]
pub enum Made {
    /// Nowhere yet: they are compiled as the test runs.
    Here,
    /// Nowhere yet, and they are for another machine: nothing runs.
    ForOthers(PathBuf),
    /// In this folder: another machine has compiled them.
    Before(PathBuf),
}

impl Made {
    pub fn of_environment() -> Self {
        let folder = |name| std::env::var_os(name).map(PathBuf::from);
        match (folder(COMPILED_IN), folder(COMPILE_INTO)) {
            (Some(made), _) => Self::Before(made),
            (None, Some(into)) => Self::ForOthers(into),
            (None, None) => Self::Here,
        }
    }
}

/// Puts the program to where it is wanted; false when compiling is all that is.
#[allow(dead_code, reason = "some of the tests have their own compilers")]
pub fn program(compiler: &str, source: &Path, link: &[&str], wanted: &Path) -> bool {
    let name = source.file_name().unwrap().to_str().unwrap();
    let stored = format!("{compiler}-{name}{}", link.concat());
    match Made::of_environment() {
        Made::Before(folder) => copy(&folder.join(stored), wanted),
        Made::ForOthers(into) => {
            compile(compiler, source, link, &into.join(stored));
            return false;
        }
        Made::Here => compile(compiler, source, link, wanted),
    }
    true
}

/// In a process of its own: a descriptor of this one that may write to the program goes to whatever another thread starts meanwhile,
/// until that executes, and for so long Linux does not execute the program (ETXTBSY).
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{} is not copied", from.display());
}

fn compile(compiler: &str, source: &Path, link: &[&str], program: &Path) {
    let options: &[&str] = match compiler {
        "rustc" => &["--edition", "2024", "-O", "-D", "warnings", "-o"],
        "go" => &["build", "-o"],
        _ => &[
            "-O1",
            "-Wall",
            "-Wno-unused-result",
            "-Wno-infinite-recursion",
            "-pthread",
            "-o",
        ],
    };
    // rustc names its parts by source and folder: two links of one source at once would meet in one.
    let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let made = folder.path().join("made");
    let output = command(compiler)
        .args(options)
        .arg(&made)
        .arg(source)
        .args(link)
        .output()
        .expect("the compiler is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(made, program).unwrap();
}

fn command(compiler: &str) -> Command {
    if compiler != "go" {
        return Command::new(compiler);
    }
    // Where its own archive is unpacked to, which not every PATH has.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec go \"$@\"", "go"])
        .env("PATH", format!("{path}:/usr/local/go/bin:/usr/lib/go/bin"))
        // Static, of the standard library and the toolchain that are there.
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off");
    command
}
