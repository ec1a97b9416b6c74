//! Sandboxes made of namespaces, cgroups, seccomp and Landlock: what runtime/sandboxd uses to make, change and end containers.
//!
//! Two processes stand behind a [`Sandbox`]. `cloister-init` (src/init) is started ahead of time by an [`Instance`], already in a cgroup of its
//! own, because the first attach to a version 1 cgroup takes 11 to 18 ms; an order over its socket makes it clone the sandbox's pid 1. That one
//! builds the sandbox from inside, gives up every right, starts the runner and reaps. No code of this library runs between a fork and an exec
//! in a process with threads.
mod bundle;
mod cgroup;
mod cradle;
mod error;
mod instance;
mod large_file;
mod limits;
mod mounts;
pub mod namespaces;
pub mod order;
mod sandbox;
mod template;

pub use cgroup::hierarchy::{Hierarchy, StatFile, StatFiles};
pub use cgroup::leftovers::Leftovers;
pub use error::{CgroupError, SpawnError, SpawnError as AssignError};
pub use instance::Instance;
pub use large_file::copy_in_large_pages;
pub use limits::{CpuWeight, IoLimits, LimitChange, Limits};
pub use sandbox::{ExitReason, ExitReport, Monitor, Sandbox, Spec, Stdio, spawn};

/// The kernel's Landlock ABI (landlock(7)); None where Landlock is not to be had.
pub fn landlock_abi() -> Option<i32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_ulong = 1;
    // SAFETY: with a null attribute, size 0 and this flag the call only gives a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    i32::try_from(version).ok().filter(|version| *version > 0)
}
