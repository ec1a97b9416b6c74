//! Linux is the oracle: each program of vmm/tests/guests runs natively and in the micro-VM and must
//! say the same. The programs of vmm/tests/hostile run in the micro-VM only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step of a test is to end it"
)]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("cloister-guests-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine without a compiler gets the programs from one that has it: there the tests run with the
/// first variable and only compile, into the folder it names; here with the second, and take them from it.
const COMPILE_INTO: &str = "CLOISTER_GUESTS_COMPILE_INTO";
const COMPILED_IN: &str = "CLOISTER_GUESTS_COMPILED_IN";

/// The program, in `folder`; `None` when compiling is all that is wanted.
fn program(kind: &str, name: &str, link: &[&str], folder: &Path) -> Option<PathBuf> {
    let program = folder.join(name);
    let stored = format!("{kind}-{name}{}", link.concat());
    if let Some(made) = std::env::var_os(COMPILED_IN) {
        std::fs::copy(Path::new(&made).join(stored), &program).unwrap();
    } else if let Some(into) = std::env::var_os(COMPILE_INTO) {
        compile(kind, name, link, &Path::new(&into).join(stored));
        return None;
    } else {
        compile(kind, name, link, &program);
    }
    Some(program)
}

fn compile(kind: &str, name: &str, link: &[&str], program: &Path) {
    let source = tests_folder().join(kind).join(format!("{name}.c"));
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-Wno-unused-result", "-pthread", "-o"])
        .arg(program)
        .arg(&source)
        .args(link)
        .output()
        .expect("a C compiler is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs in the micro-VM with the host's own root beneath, for its C library.
fn in_vm(folder: &Path, options: &[&str], program: &str, args: &[&str]) -> Output {
    let folder = folder.to_str().unwrap();
    Command::new(env!("CARGO_BIN_EXE_cloister-vm"))
        .args(["run", "--root", folder, "--root", "/"])
        .args(options)
        .arg("--")
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn compare(name: &str, link: &[&str]) {
    let folder = Folder::new(&format!("{name}{}", link.join("")));
    let Some(program) = program("guests", name, link, &folder.0) else {
        return;
    };
    let scratch = folder.0.join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let native = Command::new(&program)
        .arg(&scratch)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let vm = in_vm(&folder.0, &[], &format!("/{name}"), &["/tmp"]);
    let code = |output: &Output| {
        output
            .status
            .code()
            .or_else(|| {
                output
                    .status
                    .signal()
                    .map(|signal| signal.saturating_add(128))
            })
            .unwrap()
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        text(&vm),
        text(&native),
        "{}",
        String::from_utf8_lossy(&vm.stderr)
    );
    assert_eq!(
        code(&vm),
        code(&native),
        "{}",
        String::from_utf8_lossy(&vm.stderr)
    );
    assert!(
        native.stdout.len() > 50,
        "{name} says too little to compare"
    );
}

#[test]
fn memory() {
    compare("memory", &[]);
}

#[test]
fn memory_of_a_static_program() {
    compare("memory", &["-static"]);
}

#[test]
fn signals() {
    compare("signals", &[]);
}

#[test]
fn threads() {
    compare("threads", &[]);
}

#[test]
fn files() {
    compare("files", &[]);
}

#[test]
fn events() {
    compare("events", &[]);
}

#[test]
fn time() {
    compare("time", &[]);
}

#[test]
fn wild_arguments_never_stop_the_monitor() {
    let folder = Folder::new("wild");
    if program("hostile", "wild", &[], &folder.0).is_none() {
        return;
    }
    let output = in_vm(&folder.0, &[], "/wild", &[]);
    // Some of the wild calls write to the standard output.
    assert!(output.stdout.ends_with(b"still here\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_memory_limit_is_real() {
    let folder = Folder::new("memory_limit");
    if program("hostile", "memory_limit", &[], &folder.0).is_none() {
        return;
    }
    let output = in_vm(&folder.0, &["--memory-mb", "64"], "/memory_limit", &[]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told, "done\n", "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}
