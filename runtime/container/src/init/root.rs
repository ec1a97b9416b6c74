use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use cloister_container::order::Order;
use rustix::fs::{Access, AtFlags, CWD, accessat, statat};
use rustix::mount::{
    MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, mount_remount, move_mount, unmount,
};
use rustix::process::{chdir, pivot_root};

use crate::failure::{Failure, Step};

/// What /proc tells of the whole machine and no function needs: hidden behind an empty file or folder.
const HIDDEN: [&CStr; 24] = [
    c"proc/kcore",
    c"proc/keys",
    c"proc/key-users",
    c"proc/kmsg",
    c"proc/kallsyms",
    c"proc/latency_stats",
    c"proc/timer_list",
    c"proc/sched_debug",
    c"proc/sysrq-trigger",
    c"proc/acpi",
    c"proc/scsi",
    c"proc/dynamic_debug",
    c"proc/asound",
    c"proc/cmdline",
    c"proc/config.gz",
    c"proc/diskstats",
    c"proc/driver",
    c"proc/interrupts",
    c"proc/modules",
    c"proc/pressure",
    c"proc/softirqs",
    c"proc/swaps",
    c"proc/tty",
    c"proc/vmallocinfo",
];
/// May be read, never changed.
const READ_ONLY: [&CStr; 4] = [c"proc/sys", c"proc/irq", c"proc/bus", c"proc/fs"];
const PRIVATE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
/// Files in /tmp and /dev/shm; each costs kernel memory that the size does not count.
const MAX_INODES: u32 = 16_384;

/// Puts the root together and moves into it; the host's file systems are gone afterwards. A monitor's has no more than the image, the bundle and what
/// /proc tells of processes: the rest its guest gets from the monitor.
pub fn build(order: &Order, root: &OwnedFd, bundle: Option<&OwnedFd>) -> Result<(), Failure> {
    let attach = |tree: &OwnedFd, path: &str| {
        move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    attach(root, &order.mount_point).wall("mount of the root")?;
    chdir(order.mount_point.as_str()).wall("mount of the root")?;
    if !order.has_monitor {
        mount_whole_proc(order)?;
        mount_writable(order)?;
    } else if !mount_proc_of_processes()? {
        mount_whole_proc(order)?;
    }
    if let Some(bundle) = bundle {
        attach(bundle, "fn").wall("mount of the bundle")?;
    }
    // The old root comes to lie under the new one and is taken away there (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").wall("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).wall("unmount of the old root")?;
    chdir("/").wall("pivot_root")
}

fn mount_proc(options: Option<&CStr>) -> rustix::io::Result<()> {
    mount(
        "proc",
        "proc",
        "proc",
        PRIVATE | MountFlags::NOEXEC,
        options,
    )
}

/// Nothing of the machine is in it (proc(5), "subset=pid"). False where the kernel knows no such thing (before Linux 5.8).
fn mount_proc_of_processes() -> Result<bool, Failure> {
    match mount_proc(Some(c"subset=pid")) {
        Err(rustix::io::Errno::INVAL) => Ok(false),
        other => other.wall("mount of /proc").map(|()| true),
    }
}

fn mount_whole_proc(order: &Order) -> Result<(), Failure> {
    mount_proc(None).wall("mount of /proc")?;
    for path in HIDDEN {
        hide(path, &order.empty_file).wall("mount over /proc")?;
    }
    for path in READ_ONLY {
        if exists(path) {
            mount_bind(path, path).wall("mount over /proc")?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | PRIVATE | MountFlags::NOEXEC;
            mount_remount(path, flags, c"").wall("mount over /proc")?;
        }
    }
    Ok(())
}

/// What a function may write to.
fn mount_writable(order: &Order) -> Result<(), Failure> {
    let options = CString::new(format!(
        "size={},nr_inodes={MAX_INODES},mode=1777",
        order.tmp_bytes
    ))
    .map_err(io::Error::from)
    .step("mount of /tmp")?;
    mount("tmp", "tmp", "tmpfs", PRIVATE, Some(options.as_c_str())).wall("mount of /tmp")?;
    mount(
        "shm",
        "dev/shm",
        "tmpfs",
        PRIVATE | MountFlags::NOEXEC,
        Some(options.as_c_str()),
    )
    .wall("mount of /dev/shm")
}

fn exists(path: &CStr) -> bool {
    accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}

fn hide(path: &CStr, empty_file: &str) -> rustix::io::Result<()> {
    let Ok(found) = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else {
        // This kernel has none.
        return Ok(());
    };
    let is_folder = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();

    if is_folder {
        // /fn is still the image's empty folder.
        mount_bind(c"fn", path)
    } else {
        mount_bind(empty_file, path)
    }
}
