//! A program in a micro-VM, its monitor behind the same walls as a container.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod ground;

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use cloister_container::{ExitReason, Monitor};
use ground::{Ground, LIMITS, Run};

fn run(ground: &Ground, words: &[&str]) -> Run {
    let exe = std::env::current_exe().unwrap();
    let program = exe.ancestors().nth(2).unwrap().join("cloister-vm");
    let program = File::open(program).expect("cloister-vm is built");
    let kvm = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("/dev/kvm is there");
    let head = [
        "cloister-vm",
        "run",
        "--root",
        "/",
        "--kvm-fd",
        "4",
        "--fd3",
        "3",
        "--",
    ];
    let argv: Vec<String> = head
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect();
    let mut spec = ground.spec(&argv, &[], LIMITS);
    spec.monitor = Some(Monitor {
        program: program.as_fd(),
        kvm: kvm.as_fd(),
    });
    ground.start(&spec).finish()
}

#[test]
fn a_program_runs_behind_both_walls() {
    let mut ground = Ground::lay();
    ground.add_libraries();
    let run = run(&ground, &["/bin/busybox", "echo", "from a virtual machine"]);
    assert_eq!(run.stderr, "");
    assert_eq!(run.stdout, "from a virtual machine\n");
    assert_eq!(run.report.reason, ExitReason::Exit(0));
}
