//! Whether this machine runs micro-VMs, tried once at the start, and what each of them needs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use cloister_container::Monitor;

use crate::images::Image;
use crate::request::Create;

/// Any program there is on every machine; it needs the loader, files and an end.
const TRIED: &str = "/bin/true";

/// The monitor's program and /dev/kvm.
#[derive(Debug)]
pub struct Hypervisor {
    program: File,
    kvm: File,
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
        let trial = Command::new(&path)
            .args(["run", "--root", "/", "--", TRIED])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| NoHypervisor::Trial(error.to_string()))?;
        if !trial.status.success() {
            let said: String = String::from_utf8_lossy(&trial.stderr)
                .chars()
                .take(500)
                .collect();
            return Err(NoHypervisor::Trial(format!(
                "{} {}",
                trial.status,
                said.trim()
            )));
        }
        Ok(Self { program, kvm })
    }

    pub fn monitor(&self) -> Monitor<'_> {
        Monitor {
            program: self.program.as_fd(),
            kvm: self.kvm.as_fd(),
        }
    }
}

/// The monitor's command line: it stands in the image's root, and shows that to its guest.
pub fn monitor_argv(image: &Image, create: &Create) -> Vec<String> {
    let words = [
        "cloister-vm",
        "run",
        "--root",
        "/",
        "--kvm-fd",
        "4",
        "--fd3",
        "3",
    ];
    let mut argv: Vec<String> = words.map(str::to_owned).to_vec();
    argv.extend(["--memory-mb".to_owned(), create.memory_mb.to_string()]);
    argv.extend(["--tmp-mb".to_owned(), create.tmp_mb.to_string()]);
    for (name, value) in &image.env {
        argv.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    argv.push("--".to_owned());
    argv.extend(image.argv(create.memory_mb, &create.argv_extra));
    argv
}
