//! Programs for guests, compiled as the tests run, or before on another machine.

use std::path::Path;
use std::process::Command;

/// A machine without a compiler gets the programs from one that has it: there the tests run with the
/// first variable and only compile, into the folder it names; here with the second, and take them from it.
const COMPILE_INTO: &str = "CLOISTER_GUESTS_COMPILE_INTO";
const COMPILED_IN: &str = "CLOISTER_GUESTS_COMPILED_IN";

/// Whether compiling is all that is wanted.
#[allow(dead_code, reason = "only some of the tests do anything else")]
pub fn nothing_else() -> bool {
    std::env::var_os(COMPILE_INTO).is_some()
}

/// Puts the program to where it is wanted; false when compiling is all that is.
pub fn program(compiler: &str, source: &Path, link: &[&str], wanted: &Path) -> bool {
    let name = source.file_name().unwrap().to_str().unwrap();
    let stored = format!("{compiler}-{name}{}", link.concat());
    if let Some(made) = std::env::var_os(COMPILED_IN) {
        std::fs::copy(Path::new(&made).join(stored), wanted).unwrap();
    } else if let Some(into) = std::env::var_os(COMPILE_INTO) {
        compile(compiler, source, link, &Path::new(&into).join(stored));
        return false;
    } else {
        compile(compiler, source, link, wanted);
    }
    true
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
        .unwrap_or_else(|error| panic!("{compiler}: {error}; install it"));
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
