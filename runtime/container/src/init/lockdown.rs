use std::io;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{apply_filter, sock_filter};

use crate::failure::{Failure, Step, checked};

/// KEYCTL_JOIN_SESSION_KEYRING of keyctl(2).
const JOIN_SESSION_KEYRING: libc::c_ulong = 1;
/// capabilities(7), "The securebits flags": root means nothing, no right survives a change of user, none can be made ambient; all locked.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

/// Per process, beside what the cgroup limits for all.
const LIMITS: [(Resource, u64); 7] = [
    (Resource::Nofile, 1024),
    (Resource::Core, 0),
    (Resource::Memlock, 64 * 1024),
    (Resource::Msgqueue, 0),
    (Resource::Nice, 0),
    (Resource::Rtprio, 0),
    (Resource::Sigpending, 1024),
];

pub fn limit_resources() -> Result<(), Failure> {
    for (resource, value) in LIMITS {
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )
        .wall("resource limits")?;
    }
    Ok(())
}

/// An empty session keyring, locked securebits, and an empty bounding set, which no exec can undo.
pub fn give_up_for_good() -> Result<(), Failure> {
    // SAFETY: a null name makes an anonymous keyring; nothing else is read.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0_usize) })
        .wall("session keyring")?;
    // SAFETY: takes numbers only.
    checked(unsafe {
        libc::c_long::from(libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0))
    })
    .wall("securebits")?;
    caps::clear(None, caps::CapSet::Bounding)
        .map_err(io::Error::other)
        .wall("capability bounding set")
}

/// Every right, every file but what a function may touch, every system call but those it may make: for init, and for all it forks.
pub fn confine(filter: Filter<'_>) -> Result<(), Failure> {
    for set in [
        caps::CapSet::Ambient,
        caps::CapSet::Inheritable,
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
    ] {
        caps::clear(None, set)
            .map_err(io::Error::other)
            .wall("capabilities")?;
    }
    if cloister_container::landlock_abi().is_some() {
        restrict_files(filter)
            .map_err(io::Error::other)
            .wall("Landlock")?;
    }
    install_filter(filter)
}

/// Landlock: everything may be read and executed, only /tmp, /dev/shm and the devices written, by a monitor nothing.
fn restrict_files(filter: Filter<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The newest kind of access this knows of; a kernel that knows fewer is asked for those.
    let abi = ABI::V5;
    let read = AccessFs::from_read(abi);
    let all = AccessFs::from_all(abi);
    let file = AccessFs::from_file(abi);
    let mut rules: RulesetCreated = Ruleset::default().handle_access(all)?.create()?;
    let writable = [
        ("/tmp", all),
        ("/dev/shm", all),
        ("/dev/null", file),
        ("/dev/zero", file),
        ("/dev/full", file),
        ("/dev/random", file),
        ("/dev/urandom", file),
    ];
    let writable = match filter {
        Filter::Runner => writable.as_slice(),
        Filter::Monitor(_) => &[],
    };
    for (path, access) in [("/", read)].iter().chain(writable).copied() {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    if let Filter::Monitor(program) = filter {
        let run = AccessFs::Execute | AccessFs::ReadFile;
        rules = rules.add_rule(PathBeneath::new(program, run))?;
    }
    let RestrictionStatus { ruleset, .. } = rules.restrict_self()?;
    match ruleset {
        RulesetStatus::NotEnforced => Err("the kernel did not take the rules".into()),
        _ => Ok(()),
    }
}

/// Whose system calls are meant.
#[derive(Clone, Copy)]
pub enum Filter<'a> {
    /// A function's own.
    Runner,
    /// A micro-VM's monitor's, in a function's place; its program, which no path inside leads to.
    Monitor(BorrowedFd<'a>),
}

/// no_new_privs and the program made of seccomp/*.json.
fn install_filter(filter: Filter<'_>) -> Result<(), Failure> {
    const RUNNER: &[sock_filter] = include!(concat!(env!("OUT_DIR"), "/runner.rs"));
    const MONITOR: &[sock_filter] = include!(concat!(env!("OUT_DIR"), "/monitor.rs"));
    apply_filter(match filter {
        Filter::Runner => RUNNER,
        Filter::Monitor(_) => MONITOR,
    })
    .map_err(io::Error::other)
    .wall("seccomp filter")
}
