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
use std::os::unix::fs::{FileExt, MetadataExt};

use cloister_container::{ExitReason, Monitor};
use ground::{Ground, LIMITS, Live, Run};

const PAGE: u64 = 4096;

/// A program that has begun, and the file that its monitor counts in.
fn start(ground: &Ground, words: &[&str]) -> (Live, File) {
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
        "--counters-fd",
        "5",
        "--",
    ];
    let argv: Vec<String> = head
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect();
    let mut spec = ground.spec(&argv, &[], LIMITS);
    let counters = tempfile::tempfile().unwrap();
    counters.set_len(PAGE).unwrap();
    spec.monitor = Some(Monitor {
        program: program.as_fd(),
        kvm: kvm.as_fd(),
        counters: counters.as_fd(),
        snapshot: None,
        control: None,
    });
    (ground.start(&spec), counters)
}

/// What it said, and its counters by slot.
fn run(ground: &Ground, words: &[&str]) -> (Run, Vec<u64>) {
    let (live, counters) = start(ground, words);
    let run = live.finish();
    let mut page = vec![0; PAGE as usize];
    counters.read_exact_at(&mut page, 0).unwrap();
    let slots = page.chunks_exact(8);
    (
        run,
        slots
            .map(|slot| u64::from_le_bytes(slot.try_into().unwrap()))
            .collect(),
    )
}

#[test]
fn a_program_runs_behind_both_walls() {
    let mut ground = Ground::lay();
    ground.add_libraries();
    let (run, counters) = run(&ground, &["/bin/busybox", "echo", "from a virtual machine"]);
    assert_eq!(run.stderr, "");
    assert_eq!(run.stdout, "from a virtual machine\n");
    assert_eq!(run.report.reason, ExitReason::Exit(0));
    let (format, exits, guest_ns) = (counters[0], counters[1], counters[5]);
    let calls = &counters[32..];
    assert_eq!(format, 1);
    assert_eq!(calls[1], 1, "one write(2)");
    assert_eq!(calls.iter().sum::<u64>(), exits);
    assert!(guest_ns > 0);
}

#[test]
fn each_has_a_network_of_its_own_which_others_have_after_it() {
    let mut ground = Ground::lay();
    ground.add_libraries();
    let sleeping = || start(&ground, &["/bin/busybox", "sleep", "600"]).0;
    let namespace = |path: &str| std::fs::metadata(path).unwrap().ino();
    let network = |live: &Live| namespace(&format!("/proc/{}/ns/net", live.sandbox.pid()));
    let (first, second) = (sleeping(), sleeping());
    let (one, other) = (network(&first), network(&second));
    let host = namespace("/proc/self/ns/net");
    assert!(one != other && one != host && other != host);
    first.sandbox.kill().unwrap();
    first.finish();
    let third = sleeping();
    assert_eq!(network(&third), one);
    let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", third.sandbox.pid()));
    let devices = devices.unwrap();
    let named: Vec<&str> = devices.lines().skip(2).map(|line| line.trim()).collect();
    assert!(named.len() == 1 && named[0].starts_with("lo:"), "{devices}");
    for live in [second, third] {
        live.sandbox.kill().unwrap();
        live.finish();
    }
}
