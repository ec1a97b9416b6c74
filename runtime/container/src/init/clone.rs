use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Failure, Step, checked};

/// User and group inside.
const FUNCTION_ID: u32 = 1000;
/// clone3(2) takes it; libc has no name for it in its clone flags.
const CLONE_NEWTIME: libc::c_int = 0x80;

const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | CLONE_NEWTIME;

/// Namespaces that are there already (../namespaces.rs).
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub network: BorrowedFd<'a>,
    pub ipc: BorrowedFd<'a>,
}

/// Holds init until its ids are mapped.
pub struct Gate {
    inside: OwnedFd,
    outside: OwnedFd,
}

impl Gate {
    pub fn new() -> Result<Gate, Failure> {
        let (inside, outside) = pipe_with(PipeFlags::CLOEXEC).step("gate")?;
        Ok(Gate { inside, outside })
    }

    /// In init: waits. Fails when the cradle has failed.
    pub fn pass(self) -> Result<(), Failure> {
        drop(self.outside);
        let mut byte = [0_u8; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.inside, &mut byte)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(Failure::setup("gate", "the ids were not mapped")),
            Err(error) => Err(Failure::setup("gate", &io::Error::from(error).to_string())),
        }
    }

    /// In the cradle.
    pub fn open(self) -> Result<(), Failure> {
        rustix::io::write(&self.outside, &[1]).step("gate")?;
        Ok(())
    }
}

/// As fork(2), into new namespaces of every kind but those that are given, which are joined; None in the child. The child is
/// sandboxd's, not ours, so that sandboxd can wait for it.
pub fn into_namespaces(given: Option<Given<'_>>) -> Result<Option<Pid>, Failure> {
    let mut namespaces = NAMESPACES;
    match given {
        Some(Given { network, ipc }) => {
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
                .wall("network namespace")?;
            move_into_link_name_space(ipc, Some(LinkNameSpaceType::InterProcessCommunication))
                .wall("IPC namespace")?;
        }
        None => namespaces |= libc::CLONE_NEWNET | libc::CLONE_NEWIPC,
    }
    // SAFETY: all-zero is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // The exit signal is the parent's own (CLONE_PARENT forbids to name one).
    arguments.flags = (namespaces | libc::CLONE_PARENT) as u64;
    // SAFETY: without CLONE_VM the child has its own copy of all memory and goes on with the same stack; this process has one thread, so no lock
    // is held by somebody who is not there in the child.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut arguments),
            size_of::<libc::clone_args>(),
        )
    };
    let pid = checked(result).wall("namespaces")?;
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

/// Gives init's user namespace its one user and group.
pub fn map_ids(pid: Pid, host_id: u32) -> Result<(), Failure> {
    let write =
        |file: &str, text: &str| fs::write(format!("/proc/{}/{file}", pid.as_raw_nonzero()), text);
    let map = format!("{FUNCTION_ID} {host_id} 1");
    write("setgroups", "deny").wall("setgroups")?;
    write("uid_map", &map).wall("user id map")?;
    write("gid_map", &map).wall("group id map")
}

/// In init: becomes the user inside. It keeps its rights over its own namespaces, since uid 0 is no part of this (capabilities(7)).
pub fn become_function() -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(FUNCTION_ID), Gid::from_raw(FUNCTION_ID));
    rustix::thread::set_thread_res_gid(gid, gid, gid).wall("group id")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).wall("user id")?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .wall("dumpable")
}
