//! Linux is the oracle for whole programs, too: those of vmm/tests/programs run with the images' own
//! interpreters on the bare host and in the micro-VM, and must say the same and end the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed step of a test is to end it"
)]

mod compiled;
mod hanging;
mod said;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use said::{Said, difference, run_at_most};
use serde_json::Value;

/// As a folder for `/`, read-only but for `/tmp`: $1 is an empty folder, $2 the layers, $3 what to show at /fn.
/// What follows is executed there. All mounts end with it.
const IN_ROOT: &str = r#"
set -e
root=$1; layers=$2; functions=$3; shift 3
mount -t overlay -o "lowerdir=$layers" overlay "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -o rbind /dev "$root/dev"
mount -o bind "$functions" "$root/fn"
mount -o remount,bind,ro "$root/fn"
exec chroot "$root" "$@"
"#;
const MEMORY_MB: &str = "512";

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .join(path)
}

/// An image as set-up made it.
struct Image {
    layers: Vec<PathBuf>,
    env: Vec<(String, String)>,
}

impl Image {
    fn read(name: &str) -> Self {
        let images = in_project(".cloister/images").canonicalize().unwrap();
        let manifest = fs::read(images.join(format!("{name}.json")))
            .expect("make the images: ./cloister setup");
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = |digest: &Value| images.join("layers").join(digest.as_str().unwrap());
        let variable = |(name, value): (&String, &Value)| {
            let value = value.as_str().unwrap();
            (name.clone(), value.to_owned())
        };
        let env = manifest["runner"]["env"].as_object().unwrap();
        Self {
            layers: manifest["layers"]
                .as_array()
                .unwrap()
                .iter()
                .map(layer)
                .collect(),
            env: env.iter().map(variable).collect(),
        }
    }

    /// On the host, in a root made of the image's folders.
    fn native(&self, functions: &Path, words: &[&str]) -> Said {
        let root = tempfile::tempdir().unwrap();
        let layers: Vec<&str> = self
            .layers
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        // Each of these executes the next: it is the program itself that is killed when it hangs.
        let mut command = Command::new("unshare");
        // SAFETY: one system call, without memory, happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // A shell that starts the tests in the background has them ignore it; in a micro-VM nothing is ignored.
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        command
            .args(["-m", "sh", "-c", IN_ROOT, "sh"])
            .arg(root.path())
            .arg(layers.join(":"))
            .arg(functions)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.env.iter().filter(|(name, _)| name != "PATH").cloned());
        let said = said::run(command);
        root.close().unwrap();
        said
    }

    fn in_vm(&self, functions: &Path, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-vm"));
        command.arg("run");
        for layer in &self.layers {
            command.arg("--root").arg(layer);
        }
        for (name, value) in &self.env {
            command.args(["--env", &format!("{name}={value}")]);
        }
        let bind = format!("{}:/fn:ro", functions.display());
        command
            .args(["--memory-mb", MEMORY_MB, "--bind", &bind, "--"])
            .args(words);
        said::run(command)
    }
}

/// What a program says, and how it ends: as on the bare host, or as the file beside it says.
fn compare(image: &str, functions: &Path, words: &[&str], expected: Option<&Path>) {
    let image = Image::read(image);
    let expected = match expected {
        Some(path) => Said::well(fs::read_to_string(path).unwrap()),
        None => image.native(functions, words),
    };
    assert!(
        expected.stdout.len() > 6,
        "says too little to compare: {expected:?}"
    );
    let wrong = difference(&expected, &image.in_vm(functions, words));
    assert!(wrong.is_none(), "{}", wrong.unwrap());
}

const NODE: &[&str] = &["/usr/bin/node", "--disable-warning=ExperimentalWarning"];
const PYTHON: &[&str] = &["/usr/bin/python3.11", "-I", "-B", "-X", "utf8"];

fn run(image: &str, file: &str) {
    if matches!(
        compiled::Made::of_environment(),
        compiled::Made::ForOthers(_)
    ) {
        return;
    }
    let (language, interpreter) = if image.starts_with("node") {
        ("node", NODE)
    } else {
        ("python", PYTHON)
    };
    let folder = in_project("vmm/tests/programs").join(language);
    let path = format!("/fn/{file}");
    let words = [interpreter, &[&path]].concat();
    let expected = folder.join(file).with_extension("expected");
    let expected = expected.exists().then_some(expected.as_path());
    compare(image, &folder.canonicalize().unwrap(), &words, expected);
}

macro_rules! programs {
    ($($test:ident: $image:literal $file:literal;)*) => {
        /// Each that is run.
        const FILES: &[&str] = &[$($file),*];
        $(
            #[test]
            fn $test() {
                run($image, $file);
            }
        )*
    };
}

programs! {
    node20_http: "node20" "http.mjs";
    node20_workers: "node20" "workers.mjs";
    node20_wasm: "node20" "wasm.mjs";
    node22_http: "node22" "http.mjs";
    node22_files: "node22" "files.mjs";
    node22_types: "node22" "types.ts";
    node26_http: "node26" "http.mjs";
    node26_workers: "node26" "workers.mjs";
    node26_language: "node26" "language.mjs";
    node_aborts: "node24" "aborts.mjs";
    node_crypto: "node24" "crypto.mjs";
    node_dgram: "node24" "dgram.mjs";
    node_exits: "node24" "exits.mjs";
    node_files: "node24" "files.mjs";
    node_http: "node24" "http.mjs";
    node_language: "node24" "language.mjs";
    node_memory: "node24" "memory.mjs";
    node_modules: "node24" "modules.mjs";
    node_net: "node24" "net.mjs";
    node_processes: "node24" "processes.mjs";
    node_refused: "node24" "refused.mjs";
    node_sqlite: "node24" "sqlite.mjs";
    node_streams: "node24" "streams.mjs";
    node_timers: "node24" "timers.mjs";
    node_tls: "node24" "tls.mjs";
    node_types: "node24" "types.ts";
    node_wasm: "node24" "wasm.mjs";
    node_watching: "node24" "watching.mjs";
    node_workers: "node24" "workers.mjs";
    node_zlib: "node24" "zlib.mjs";
    python_data: "python3" "data.py";
    python_database: "python3" "database.py";
    python_evented: "python3" "evented.py";
    python_files: "python3" "files.py";
    python_foreign: "python3" "foreign.py";
    python_refused: "python3" "refused.py";
    python_servers: "python3" "servers.py";
    python_signals: "python3" "signals.py";
    python_sockets: "python3" "sockets.py";
    python_system: "python3" "system.py";
    python_threads: "python3" "threads.py";
    python_tls: "python3" "tls.py";
    python_uncaught: "python3" "uncaught.py";
}

#[test]
fn every_program_is_run() {
    /// Imported by others.
    const PARTS: [&str; 1] = ["certificate.mjs"];
    let mut there = BTreeSet::new();
    for language in ["node", "python"] {
        for entry in fs::read_dir(in_project("vmm/tests/programs").join(language)).unwrap() {
            there.insert(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    there.retain(|name| !name.ends_with(".expected") && !PARTS.contains(&name.as_str()));
    let run = FILES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(there, run);
}

/// What the compiler makes of the program, on the host and in the micro-VM.
fn compare_compiled(compiler: &str, source: &str, link: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let source = in_project("vmm/tests/programs").join(source);
    let built = compiled::program(compiler, &source, link, &folder.path().join("main"));
    if built {
        compare("node24", folder.path(), &["/fn/main"], None);
    }
}

#[test]
fn rust_static() {
    compare_compiled(
        "rustc",
        "rust/main.rs",
        &["-C", "target-feature=+crt-static"],
    );
}

#[test]
fn rust_dynamic() {
    compare_compiled("rustc", "rust/main.rs", &[]);
}

#[test]
fn go_static() {
    compare_compiled("go", "go/main.go", &[]);
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn one_that_is_killed_differs_from_one_that_said_nothing() {
    let killed = said::run(shell("kill -9 $$"));
    assert_eq!(
        (killed.code(), killed.end().as_str()),
        (137, "signal: 9 (SIGKILL)")
    );
    let told = difference(&Said::well(String::new()), &killed).unwrap();
    assert!(told.contains("signal: 9 (SIGKILL)"), "{told}");
    // What a guest's signal is, as its monitor tells it.
    let guest_killed = said::run(shell("exit 137"));
    assert!(difference(&killed, &guest_killed).is_none());
}

#[test]
fn one_that_hangs_is_killed_and_never_as_expected() {
    let hangs = || run_at_most(shell("exec sleep 600"), 0);
    let told = difference(&Said::well(String::new()), &hangs()).unwrap();
    assert!(told.contains("taken to hang after 0 s"), "{told}");
    // What Linux does is not right where it hangs, too.
    assert!(difference(&hangs(), &hangs()).is_some());
}
