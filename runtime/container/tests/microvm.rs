//! A program in a micro-VM, its monitor behind the same walls as a container.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod ground;

use std::fs::{File, OpenOptions, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use std::path::PathBuf;

use cloister_container::{ExitReason, Monitor, SpawnError};
use ground::{Ground, LIMITS, Live, Run, wait_end};
use rustix::process::{Pid, Signal, kill_process};

const PAGE: u64 = 4096;

/// A program that has begun, and the file that its monitor counts in.
fn start(ground: &Ground, words: &[&str]) -> (Live, File) {
    let exe = std::env::current_exe().unwrap();
    let program = exe.ancestors().nth(2).unwrap().join("cloister-vm");
    let program = File::open(program).expect("cloister-vm is built");
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
    let counters = tempfile::tempfile().unwrap();
    counters.set_len(PAGE).unwrap();
    (
        start_as_monitor(ground, &program, &argv, &counters),
        counters,
    )
}

fn start_as_monitor(ground: &Ground, program: &File, argv: &[String], counters: &File) -> Live {
    try_as_monitor(ground, program, argv, counters).unwrap()
}

fn try_as_monitor(
    ground: &Ground,
    program: &File,
    argv: &[String],
    counters: &File,
) -> Result<Live, SpawnError> {
    let kvm = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("/dev/kvm is there");
    let mut spec = ground.spec(argv, &[], LIMITS);
    spec.monitor = Some(Monitor {
        program: program.as_fd(),
        kvm: kvm.as_fd(),
        counters: counters.as_fd(),
        snapshot: None,
        control: None,
    });
    ground.try_start(&spec)
}

/// A program of these instructions alone, to stand where a monitor would: in a segment at 4 MiB, behind its headers (elf(5)). No compiler is where
/// these tests run once more.
fn program(ground: &Ground, instructions: &[u8]) -> File {
    let len = 120 + instructions.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    // Entry, program headers, no sections.
    for word in [0x40_0078, 64, 0u64] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // To be loaded, read and executed.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, 0x40_0000, 0x40_0000, len, len, PAGE] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(instructions);
    let path = ground.folder.path().join("ends");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    File::open(path).unwrap()
}

/// exit_group(7)
const EXITS: &[u8] = b"\xbf\x07\0\0\0\xb8\xe7\0\0\0\x0f\x05";
/// ud2
const TRAPS: &[u8] = b"\x0f\x0b";
/// Maps 200 MiB (mmap(2)) and writes to all of it.
const FILLS: &[u8] = b"\x31\xff\xbe\0\0\x80\x0c\xba\x03\0\0\0\x41\xba\x22\0\0\0\x49\xc7\xc0\xff\xff\xff\xff\x45\x31\xc9\xb8\x09\0\0\0\x0f\x05\
    \x48\x89\xc7\xb9\0\0\x80\x0c\xb0\x01\xf3\xaa\x0f\x0b";
/// Jumps to itself.
const STAYS: &[u8] = b"\xeb\xfe";

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
    let ground = Ground::lay();
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
fn each_has_a_network_and_ipc_of_its_own_which_others_have_after_it() {
    let ground = Ground::lay();
    let sleeping = || start(&ground, &["/bin/busybox", "sleep", "600"]).0;
    let namespace = |path: &str| std::fs::metadata(path).unwrap().ino();
    let of = |process: String| {
        ["net", "ipc"].map(|kind| namespace(&format!("/proc/{process}/ns/{kind}")))
    };
    let both = |live: &Live| of(live.sandbox.pid().to_string());
    let (first, second) = (sleeping(), sleeping());
    let (one, other, host) = (both(&first), both(&second), of("self".to_owned()));
    for kind in 0..2 {
        assert!(one[kind] != other[kind] && one[kind] != host[kind] && other[kind] != host[kind]);
    }
    first.sandbox.kill().unwrap();
    first.finish();
    let third = sleeping();
    assert_eq!(both(&third), one);
    let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", third.sandbox.pid()));
    let devices = devices.unwrap();
    let named: Vec<&str> = devices.lines().skip(2).map(|line| line.trim()).collect();
    assert!(named.len() == 1 && named[0].starts_with("lo:"), "{devices}");
    for live in [second, third] {
        live.sandbox.kill().unwrap();
        live.finish();
    }
}

/// What its guest sees beside the image and the bundle, the monitor makes.
#[test]
fn the_monitor_sees_the_image_and_processes_alone() {
    let ground = Ground::lay();
    let (live, _) = start(&ground, &["/bin/busybox", "sleep", "600"]);
    let inside = PathBuf::from(format!("/proc/{}", live.sandbox.pid()));
    let mounts = std::fs::read_to_string(inside.join("mountinfo")).unwrap();
    let mut points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    points.sort_unstable();
    assert_eq!(points, ["/", "/dev", "/proc"], "{mounts}");
    let names = std::fs::read_dir(inside.join("root/proc")).unwrap();
    let strange: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["self", "thread-self"].contains(&name.as_str()))
        .filter(|name| name.parse::<u32>().is_err())
        .collect();
    assert_eq!(strange, Vec::<String>::new());
    for path in ["tmp/x", "dev/shm/x", "x"] {
        assert!(
            File::create(inside.join("root").join(path)).is_err(),
            "{path}"
        );
    }
    live.sandbox.kill().unwrap();
    live.finish();
}

#[test]
fn the_monitor_is_the_only_process() {
    let ground = Ground::lay();
    let (live, _) = start(&ground, &["/bin/busybox", "sleep", "600"]);
    let pid = live.sandbox.pid();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert!(read("cmdline").starts_with("cloister-vm test@1\0run\0"));
    let status = read("status");
    let inside = status.lines().find(|line| line.starts_with("NSpid:"));
    assert_eq!(inside.unwrap().split_whitespace().last(), Some("1"));
    // Before Linux 6.13 a thread of the kernel's own, which KVM makes for each machine, is counted among them; it executes nothing.
    let members = ground.limit_file("cgroup.procs");
    let programs: Vec<&str> = members
        .lines()
        .filter(|member| std::fs::read_link(format!("/proc/{member}/exe")).is_ok())
        .collect();
    assert_eq!(programs, [pid.to_string()]);
    live.sandbox.kill().unwrap();
    wait_end(&live.sandbox);
    assert_eq!(live.sandbox.reap().reason, ExitReason::Killed);
    assert_eq!(ground.cells(), Vec::<PathBuf>::new());
}

/// The kernel would keep the signal from a pid 1 that does not handle it.
#[test]
fn a_monitor_that_aborts_ends() {
    let ground = Ground::lay();
    let (mut live, _) = start(
        &ground,
        &["/bin/busybox", "sh", "-c", "echo up; read line <&3"],
    );
    let mut up = [0; 3];
    live.stdout.read_exact(&mut up).unwrap();
    let pid = Pid::from_raw(live.sandbox.pid()).unwrap();
    kill_process(pid, Signal::ABORT).unwrap();
    let run = live.finish();
    assert_eq!(
        (run.stderr.as_str(), run.report.reason),
        ("", ExitReason::Exit(134))
    );
}

#[test]
fn whatever_ends_a_monitor_is_told() {
    let ground = Ground::lay();
    let start = |instructions: &[u8]| {
        let program = program(&ground, instructions);
        let argv = ["ends".to_owned()];
        start_as_monitor(&ground, &program, &argv, &tempfile::tempfile().unwrap())
    };
    let reason = |instructions: &[u8]| start(instructions).finish().report.reason;
    assert_eq!(reason(EXITS), ExitReason::Exit(7));
    assert_eq!(reason(TRAPS), ExitReason::Signal(4));
    assert_eq!(reason(FILLS), ExitReason::Oom);
    let waiting = start(STAYS);
    kill_process(Pid::from_raw(waiting.sandbox.pid()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(waiting.finish().report.reason, ExitReason::Killed);
    assert_eq!(ground.cells(), Vec::<PathBuf>::new());
}

#[test]
fn a_monitor_that_cannot_be_executed_is_told_of_and_leaves_nothing() {
    let ground = Ground::lay();
    let none = tempfile::tempfile().unwrap();
    let argv = ["cloister-vm".to_owned()];
    let error = try_as_monitor(&ground, &none, &argv, &none).unwrap_err();
    assert_eq!(error.code(), "setup_failed");
    assert!(
        error.to_string().contains("program failed: cloister-vm"),
        "{error}"
    );
    assert_eq!(ground.cells(), Vec::<PathBuf>::new());
}
