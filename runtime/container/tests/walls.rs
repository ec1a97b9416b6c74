//! What a sandbox is made of, seen from inside by busybox: each line of runtime/sandboxd/README.md, "What a container sandbox is".
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod ground;

use std::collections::BTreeMap;
use std::fs;

use ground::Ground;

#[test]
fn every_namespace_is_its_own() {
    let ground = Ground::lay();
    let out = ground
        .out("for n in user pid mnt net uts ipc cgroup time; do readlink /proc/self/ns/$n; done");
    let inside: Vec<&str> = out.lines().collect();
    assert_eq!(inside.len(), 8, "{out}");
    for name in inside {
        let kind = name.split(':').next().unwrap();
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(host.to_str().unwrap(), name);
    }
}

#[test]
fn one_user_that_is_nobody_outside_and_has_no_rights() {
    let ground = Ground::lay();
    let out = ground.out(
        "id -u; id -g; id -G; cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/status",
    );
    let mut lines = out.lines();
    assert_eq!(
        [lines.next(), lines.next(), lines.next()],
        [Some("1000"); 3]
    );
    for _ in 0..2 {
        let map: Vec<u32> = lines
            .next()
            .unwrap()
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        assert_eq!((map[0], map[2]), (1000, 1));
        assert!(map[1] >= 900_000, "{map:?}");
    }
    let status: BTreeMap<&str, &str> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2");
    assert_eq!(status["Groups"], "");
}

#[test]
fn the_root_is_the_images_layers_and_cannot_be_written() {
    let ground = Ground::lay();
    let out = ground.out("cat /etc/layer; for f in /x /etc/layer /bin/x /fn/x /dev/x /proc/x; do (: > $f) && echo wrote $f; done; ls /");
    assert_eq!(out, "topbin\ndev\netc\nfn\nproc\ntmp\n");
}

#[test]
fn nothing_of_the_host_is_mounted() {
    let ground = Ground::lay();
    let out = ground.out("cat /proc/self/mountinfo");
    let mut points: Vec<&str> = out
        .lines()
        .map(|line| line.split(' ').nth(4).unwrap())
        .collect();
    points.retain(|point| !point.starts_with("/proc/"));
    points.sort_unstable();
    assert_eq!(points, ["/", "/dev", "/dev/shm", "/proc", "/tmp"], "{out}");
    for line in out.lines() {
        let mut words = line.split(' ');
        let (point, options) = (words.nth(4).unwrap(), words.next().unwrap());
        assert!(options.contains("nosuid"), "{line}");
        let writable =
            ["/tmp", "/dev/shm", "/proc"].contains(&point) || point.starts_with("/proc/");
        assert!(writable || options.starts_with("ro"), "{line}");
    }
}

#[test]
fn tmp_and_shm_are_bounded() {
    let ground = Ground::lay();
    for folder in ["/tmp", "/dev/shm"] {
        let run = ground.run(&format!(
            "dd if=/dev/zero of={folder}/fill bs=1M count=8; ls -l {folder}/fill"
        ));
        assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        let size: u64 = run
            .stdout
            .split_whitespace()
            .nth(4)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(size, ground::LIMITS.tmp_bytes);
    }
    // By what the shell does itself: a process for each file takes minutes where the machine is emulated.
    let out = ground.out(
        "i=0; while true > /tmp/f$i && [ $i -lt 20000 ]; do i=$((i+1)); done 2>/dev/null; echo $i",
    );
    let files: u32 = out.trim().parse().unwrap();
    assert!((16_000..16_384).contains(&files), "{files}");
}

#[test]
fn devices_are_harmless_and_work() {
    let ground = Ground::lay();
    let out = ground.out("ls /dev; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null && echo written; echo x > /dev/full || echo full");
    let want =
        "fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n4\n4\nwritten\nfull\n";
    assert_eq!(out, want);
}

#[test]
fn what_proc_tells_of_the_machine_is_hidden() {
    let ground = Ground::lay();
    let out = ground.out(
        "for f in kcore keys kmsg kallsyms timer_list sched_debug; do [ -e /proc/$f ] && head -c 1 /proc/$f; done;
         for f in sysrq-trigger keys interrupts cmdline; do [ -e /proc/$f ] && (echo h > /proc/$f) && echo wrote $f; done;
         (echo 0 > /proc/self/oom_score_adj) || echo refused; cat /proc/interrupts /proc/cmdline /proc/swaps;
         (echo x > /proc/sys/kernel/hostname) || echo refused;
         cat /proc/1/environ || echo refused; ls /proc/1/root || echo refused; hostname",
    );
    assert_eq!(out, "refused\nrefused\nrefused\nrefused\nsb-test\n");
}

#[test]
fn only_its_own_processes_are_seen_or_reached() {
    let ground = Ground::lay();
    let out =
        ground.out("sleep 100 & ps -o pid,args; kill -9 1; kill -9 -1 2>/dev/null; echo after");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[1].contains("cloister-init test@1"), "{out}");
    assert!(lines.len() <= 7, "{out}");
}

#[test]
fn the_cgroup_path_shows_nothing_of_the_host() {
    let ground = Ground::lay();
    let out = ground.out("cat /proc/self/cgroup");
    for line in out.lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
}

#[test]
fn the_network_is_a_loopback_of_its_own() {
    let ground = Ground::lay();
    let out = ground
        .out("cat /proc/net/dev | tail -n +3 | cut -d: -f1; ip addr show lo | head -n 1; ip route");
    assert!(
        out.starts_with("    lo\n") || out.starts_with("lo\n"),
        "{out}"
    );
    assert_eq!(
        out.lines()
            .filter(|line| line.trim_end().ends_with("lo"))
            .count(),
        1,
        "{out}"
    );
}

#[test]
fn mounts_namespaces_devices_and_traces_are_refused() {
    let ground = Ground::lay();
    let out = ground.out(
        "mount -t tmpfs x /tmp && echo mount; umount /proc && echo umount; unshare -U true && echo unshare;
         unshare -m true && echo unshare; chroot /tmp true && echo chroot; mknod /tmp/d b 8 0 && echo mknod;
         nsenter -t 1 -m true && echo nsenter; hostname evil && echo hostname;
         chown 0 /tmp && echo chown; ip link set lo down && echo link; renice -20 $$ && echo nice; swapoff /x && echo swap;
         pivot_root /tmp /tmp && echo pivot; insmod /tmp/x.ko && echo insmod; reboot -f && echo reboot; echo end",
    );
    assert_eq!(out.lines().last(), Some("end"));
    let got: Vec<&str> = out.lines().filter(|line| !line.contains(' ')).collect();
    assert_eq!(got, ["end"], "{out}");
}

#[test]
fn no_signal_is_ignored_or_blocked() {
    let ground = Ground::lay();
    // Not by the shell, which ignores SIGQUIT by itself.
    let argv = [
        "/bin/busybox",
        "grep",
        "-E",
        "Sig(Ign|Blk)",
        "/proc/self/status",
    ]
    .map(str::to_owned);
    let out = ground
        .start(&ground.spec(&argv, &[], ground::LIMITS))
        .finish()
        .stdout;
    assert_eq!(
        out,
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[test]
fn descriptors_are_the_four_it_is_given() {
    let ground = Ground::lay();
    let out = ground.out("ls /proc/$$/fd; true");
    assert_eq!(out, "0\n1\n2\n3\n");
    let out = ground.out("ulimit -n; ulimit -c; readlink /proc/self/fd/0");
    assert_eq!(out, "1024\n0\n/dev/null\n");
}
