//! Whether this machine runs micro-VMs, tried once at the start, and what each of them needs.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cloister_container::Monitor;

use crate::counters::CounterFile;
use crate::images::Image;
use crate::request::Create;
use crate::snapshots::Snapshot;

/// Any program there is on every machine; it needs the loader, files and an end.
const TRIED: &str = "/bin/true";

/// The monitor's program and /dev/kvm.
#[derive(Debug)]
pub struct Hypervisor {
    program: File,
    kvm: File,
    /// Names of the system calls that guests may make, by number.
    calls: BTreeMap<u16, String>,
    /// What every machine of this host has in common, as the monitor tells of it and wants to be told.
    facts: String,
}

/// Why there are no micro-VMs here.
#[derive(Debug, thiserror::Error)]
pub enum NoHypervisor {
    #[error("/dev/kvm cannot be opened: {0}")]
    Device(io::Error),
    #[error("{0} cannot be opened: {1}")]
    Program(String, io::Error),
    #[error("a micro-VM that was tried did not run: {0}")]
    Trial(String),
}

impl Hypervisor {
    /// Runs a program in a micro-VM. `folder` holds `cloister-vm`, beside sandboxd itself.
    pub fn try_here(folder: &Path) -> Result<Self, NoHypervisor> {
        let mut options = OpenOptions::new();
        let kvm = options
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map_err(NoHypervisor::Device)?;
        let path = folder.join("cloister-vm");
        let opened = File::open(&path);
        let program =
            opened.map_err(|error| NoHypervisor::Program(path.display().to_string(), error))?;
        ask(&path, &["run", "--root", "/", "--", TRIED])?;
        let calls = serde_json::from_slice(&ask(&path, &["syscalls", "--json"])?)
            .map_err(|error| NoHypervisor::Trial(error.to_string()))?;
        let facts = ask(&path, &["host-facts"])?;
        let facts = String::from_utf8_lossy(&facts).trim().to_owned();
        Ok(Self {
            program,
            kvm,
            calls,
            facts,
        })
    }

    pub fn calls(&self) -> &BTreeMap<u16, String> {
        &self.calls
    }
}

/// What the monitor's program prints.
fn ask(program: &Path, arguments: &[&str]) -> Result<Vec<u8>, NoHypervisor> {
    let answer = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| NoHypervisor::Trial(error.to_string()))?;
    if answer.status.success() {
        return Ok(answer.stdout);
    }
    let said = String::from_utf8_lossy(&answer.stderr);
    let said: String = said.trim().chars().take(500).collect();
    Err(NoHypervisor::Trial(format!("{} {said}", answer.status)))
}

/// What one micro-VM's monitor is given.
pub struct Machine {
    hypervisor: Arc<Hypervisor>,
    counters: Arc<CounterFile>,
    snapshot: Option<Arc<Snapshot>>,
    /// Where the monitor is to write a snapshot, and its end of the socket by which it is asked.
    freezable: Option<(File, OwnedFd)>,
    /// Its end of the socket by which it hears what to bring back, and of resets.
    hears_at: Option<OwnedFd>,
}

impl Machine {
    pub fn new(hypervisor: Arc<Hypervisor>, counters: Arc<CounterFile>) -> Self {
        Self {
            hypervisor,
            counters,
            snapshot: None,
            freezable: None,
            hears_at: None,
        }
    }

    /// One that is brought back.
    pub fn of_snapshot(mut self, snapshot: Option<Arc<Snapshot>>) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// One that may be frozen.
    pub fn freezable(mut self, by: Option<(File, OwnedFd)>) -> Self {
        self.freezable = by;
        self
    }

    /// One that is told what to bring back, or to go back to it.
    pub fn hearing(mut self, at: Option<OwnedFd>) -> Self {
        self.hears_at = at;
        self
    }

    pub fn facts(&self) -> &str {
        &self.hypervisor.facts
    }

    pub fn monitor(&self) -> Monitor<'_> {
        let written = self.freezable.as_ref();
        let snapshot = self
            .snapshot
            .as_ref()
            .map(|snapshot| snapshot.file().as_fd());
        Monitor {
            program: self.hypervisor.program.as_fd(),
            kvm: self.hypervisor.kvm.as_fd(),
            counters: self.counters.file().as_fd(),
            snapshot: snapshot.or_else(|| written.map(|(file, _)| file.as_fd())),
            control: written
                .map(|(_, control)| control.as_fd())
                .or_else(|| self.hears_at.as_ref().map(AsFd::as_fd)),
        }
    }
}

/// What a monitor is to do with the image's runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Boot {
        freezable: bool,
    },
    /// Bring back the snapshot that it is told, when it is told; `likely` if it is given one like that.
    Wait {
        likely: bool,
    },
}

/// The monitor's command line: it stands in the image's root, and shows that to its guest. A restored guest sees `pid` as its own id.
pub fn monitor_argv(
    image: &Image,
    create: &Create,
    task: Task,
    pid: u32,
    facts: &str,
) -> Vec<String> {
    let verb = match task {
        Task::Boot { .. } => "run",
        Task::Wait { .. } => "restore",
    };
    let mut argv: Vec<String> = Vec::new();
    let mut say = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
    say(&["cloister-vm", verb, "--root", "/", "--kvm-fd", "4"]);
    say(&["--counters-fd", "5", "--host-facts", facts]);
    say(&["--memory-mb", &create.memory_mb.to_string()]);
    say(&["--tmp-mb", &create.tmp_mb.to_string()]);
    // The two descriptors follow each other; without a file the socket is the first.
    let (file, socket) = match task {
        Task::Boot { freezable } => (freezable, freezable),
        Task::Wait { likely } => (likely, true),
    };
    if file {
        say(&["--snapshot-fd", "6", "--snapshot-key", &image.digest]);
    }
    if socket {
        say(&["--control-fd", if file { "7" } else { "6" }]);
    }
    match task {
        // Its socket comes with what it is told.
        Task::Wait { .. } => say(&["--wait"]),
        _ => say(&["--fd3", "3"]),
    }
    if verb == "restore" {
        say(&["--pid", &pid.to_string()]);
        return argv;
    }
    for (name, value) in &image.env {
        say(&["--env", &format!("{name}={value}")]);
    }
    say(&["--"]);
    argv.extend(image.argv(create.memory_mb, &create.argv_extra));
    argv
}
