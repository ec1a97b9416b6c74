//! Limits, ends, and what is left: nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod ground;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cloister_container::{CpuWeight, ExitReason, Hierarchy, Instance, LimitChange, Limits};
use ground::{Ground, LIMITS, shell, wait_end};

#[test]
fn a_program_runs_and_its_exit_code_comes_back() {
    let ground = Ground::lay();
    let run = ground.run("echo out; echo err >&2; exit 7");
    assert_eq!(run.stdout, "out\n");
    assert_eq!(run.stderr, "err\n");
    assert_eq!(run.report.reason, ExitReason::Exit(7));
    assert!(run.report.memory_peak_bytes.unwrap() > 0);
    assert!(!run.report.leftover);
    assert_eq!(
        ground.cells(),
        Vec::<PathBuf>::new(),
        "its cgroups are gone"
    );
}

#[test]
fn a_signal_that_ends_it_is_named() {
    let ground = Ground::lay();
    assert_eq!(
        ground.run("kill -9 $$").report.reason,
        ExitReason::Signal(9)
    );
    assert_eq!(
        ground.run("kill -15 $$").report.reason,
        ExitReason::Signal(15)
    );
}

#[test]
fn more_memory_than_it_may_have_is_out_of_memory() {
    let ground = Ground::lay();
    // /tmp counts as memory, and so does what a program holds.
    let limits = Limits {
        tmp_bytes: 256 << 20,
        ..LIMITS
    };
    let run = ground.run_limited("exec dd if=/dev/zero of=/tmp/fill bs=1M count=200", limits);
    assert_eq!(run.report.reason, ExitReason::Oom);
    let peak = run.report.memory_peak_bytes.unwrap();
    assert!(peak <= LIMITS.memory_bytes, "{peak}");
    let run = ground.run("exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    assert_eq!(run.report.reason, ExitReason::Oom);
}

#[test]
fn processes_stop_at_their_limit() {
    let ground = Ground::lay();
    let run = ground.run("i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done; echo no end");
    assert!(
        run.stderr.contains("Resource temporarily unavailable")
            || run.stderr.contains("can't fork"),
        "{}",
        run.stderr
    );
    assert!(!run.stdout.contains("no end"));
}

#[test]
fn limits_stand_in_the_kernels_files() {
    let ground = Ground::lay();
    let argv = shell("read line <&3");
    let mut live = ground.start(&ground.spec(
        &argv,
        &[],
        Limits {
            cpu_milli: 250,
            ..LIMITS
        },
    ));
    let (memory, swap, cpu) = ground.limits();
    assert_eq!(memory, "67108864");
    assert!(
        ["0", "67108864", "swappiness 0"].contains(&swap.as_str()),
        "{swap}"
    );
    assert_eq!(cpu, "25000 100000");
    assert_eq!(ground.limit_file("pids.max"), "32");
    let change = LimitChange {
        memory_bytes: Some(128 << 20),
        cpu_milli: Some(2000),
        pids: Some(64),
        ..LimitChange::default()
    };
    live.sandbox
        .assign(ground.folder.path(), Some(change))
        .unwrap();
    let (memory, _, cpu) = ground.limits();
    assert_eq!(
        (memory.as_str(), cpu.as_str()),
        ("134217728", "200000 100000")
    );
    assert_eq!(ground.limit_file("pids.max"), "64");
    let files = live.sandbox.stat_files();
    for file in [files.cpu, files.memory, files.memory_peak] {
        assert!(
            !fs::read_to_string(&file.path).unwrap().is_empty(),
            "{file:?}"
        );
    }
    live.socket.write_all(b"go\n").unwrap();
    assert_eq!(live.finish().report.reason, ExitReason::Exit(0));
}

#[test]
fn one_that_waits_has_little_of_busy_processors_until_it_serves() {
    let ground = Ground::lay();
    let argv = shell("read line <&3");
    let weight_of = |limits: Limits| {
        let mut live = ground.start(&ground.spec(&argv, &[], limits));
        let before = ground.cpu_weight();
        live.sandbox.serve().unwrap();
        let after = ground.cpu_weight();
        live.socket.write_all(b"go\n").unwrap();
        live.finish();
        (before, after)
    };
    let (before, after) = weight_of(LIMITS);
    assert_eq!(before, after, "what serves has its weight already");
    let (waiting, serving) = weight_of(Limits {
        cpu_weight: CpuWeight::Waiting,
        ..LIMITS
    });
    assert_eq!(serving, after);
    assert!(waiting * 10 <= serving, "{waiting} of {serving}");
}

#[test]
fn processors_can_be_chosen() {
    let ground = Ground::lay();
    let limits = Limits {
        cpuset: Some("0".to_owned()),
        ..LIMITS
    };
    let run = ground.run_limited("cat /proc/self/status", limits);
    let line = run
        .stdout
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list"))
        .unwrap();
    assert_eq!(line.split_whitespace().last(), Some("0"));
}

#[test]
fn a_cell_gets_its_function_while_it_runs() {
    let ground = Ground::lay();
    let bundle = ground.folder.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("hello"), "from the bundle").unwrap();
    let argv = shell(
        "ls /fn; echo ready >&3; read line <&3; cat /fn/hello; (: > /fn/x) || echo read-only",
    );
    let mut live = ground.start(&ground.spec(&argv, &[], LIMITS));
    let mut ready = [0; 6];
    live.socket.read_exact(&mut ready).unwrap();
    live.sandbox.assign(&bundle, None).unwrap();
    live.socket.write_all(b"go\n").unwrap();
    assert_eq!(live.finish().stdout, "from the bundleread-only\n");
}

#[test]
fn a_bundle_may_be_there_from_the_start() {
    let ground = Ground::lay();
    let bundle = ground.folder.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("hello"), "early").unwrap();
    let argv = shell("cat /fn/hello; echo $GREETING");
    let env = [("GREETING".to_owned(), "hi".to_owned())];
    let mut spec = ground.spec(&argv, &env, LIMITS);
    spec.bundle = Some(&bundle);
    assert_eq!(ground.start(&spec).finish().stdout, "earlyhi\n");
}

#[test]
fn kill_ends_all_of_it() {
    let ground = Ground::lay();
    let argv = shell(
        "(setsid sh -c 'while :; do :; done') & setsid sleep 1000 & echo ready >&3; while :; do :; done",
    );
    let mut live = ground.start(&ground.spec(&argv, &[], LIMITS));
    let mut ready = [0; 6];
    live.socket.read_exact(&mut ready).unwrap();
    let title = fs::read(format!("/proc/{}/cmdline", live.sandbox.pid())).unwrap();
    assert!(title.starts_with(b"cloister-init test@1\0"), "{title:?}");
    live.sandbox.kill().unwrap();
    wait_end(&live.sandbox);
    let report = live.sandbox.reap();
    assert_eq!(
        (report.reason, report.leftover),
        (ExitReason::Killed, false)
    );
    assert_eq!(ground.cells(), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let ground = Ground::lay();
    let argv = ["/bin/missing".to_owned()];
    let error = ground
        .try_start(&ground.spec(&argv, &[], LIMITS))
        .unwrap_err();
    assert_eq!(error.code(), "setup_failed");
    assert!(
        error.to_string().contains("/bin/missing: No such file"),
        "{error}"
    );
    let argv = shell("true");
    let mut spec = ground.spec(&argv, &[], LIMITS);
    let layers = [PathBuf::from("/nowhere/layer")];
    spec.layers = &layers;
    let error = ground.try_start(&spec).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("root file system failed: No such file"),
        "{error}"
    );
    let limits = Limits {
        cpuset: Some("4096".to_owned()),
        ..LIMITS
    };
    let error = ground
        .try_start(&ground.spec(&argv, &[], limits))
        .unwrap_err();
    assert_eq!(error.code(), "limit_unavailable");
    assert!(!error.remedy().is_empty());
    assert_eq!(ground.cells(), Vec::<PathBuf>::new());
    assert_eq!(
        ground.run("exit 3").report.reason,
        ExitReason::Exit(3),
        "the next one is not harmed"
    );
}

#[test]
fn many_at_once_and_none_is_left() {
    let ground = Ground::lay();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for code in 0..5 {
                    assert_eq!(
                        ground.run(&format!("exit {code}")).report.reason,
                        ExitReason::Exit(code)
                    );
                }
            });
        }
    });
    assert_eq!(ground.cells(), Vec::<PathBuf>::new());
}

#[test]
fn a_former_run_is_cleared_away() {
    let id = format!("{:08x}", 0xc1ea_0000_u32 | (std::process::id() & 0xffff));
    let pids = Path::new("/sys/fs/cgroup").join("pids");
    let root = if pids.is_dir() {
        pids
    } else {
        PathBuf::from("/sys/fs/cgroup")
    };
    let cell = root.join(format!("cloister-{id}/cell-0"));
    fs::create_dir_all(&cell).unwrap();
    let mut stray = Command::new("/bin/busybox")
        .args(["sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(cell.join("cgroup.procs"), stray.id().to_string()).unwrap();
    // Reaped by another thread, as pid 1 would in a real crash: a zombie of ours would still count.
    let waiter = std::thread::spawn(move || stray.wait().unwrap());
    let (instance, found) = Instance::claim(Hierarchy::detect().unwrap(), &id).unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&waiter.join().unwrap()),
        Some(9)
    );
    assert_eq!((found.processes, found.cgroups), (1, 2));
    instance.remove().unwrap();
    assert!(!cell.parent().unwrap().exists());
    assert!(!Path::new("/run").join(format!("cloister-{id}")).exists());
    let error = Instance::claim(Hierarchy::detect().unwrap(), "../../etc").unwrap_err();
    assert!(error.to_string().contains("hex"), "{error}");
}
