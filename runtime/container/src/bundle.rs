use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::mounts::{NODEV, NOSUID, RDONLY, set_attributes};

/// Where a function's files stand inside.
const MOUNT_POINT: &str = "/fn";

/// A detached read-only mount of a bundle's folder. `path` may be a link in /proc/self/fd: it is followed here, in the caller's own thread.
pub(crate) fn tree_of(path: &Path) -> io::Result<OwnedFd> {
    let tree = open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    set_attributes(&tree, c"", RDONLY | NOSUID | NODEV, false)?;
    Ok(tree)
}

/// Mounts a tree at /fn of the sandbox whose mount namespace is `namespace`. A thread of its own goes in, because a thread that shares its root
/// with others may not (setns(2)); it ends with this, so it never comes back out.
pub(crate) fn mount_in(namespace: BorrowedFd<'_>, tree: &OwnedFd) -> io::Result<()> {
    std::thread::scope(|scope| {
        let work = std::thread::Builder::new()
            .name("assign".to_owned())
            .spawn_scoped(scope, || -> io::Result<()> {
                // SAFETY: only the root and working folder become the thread's own; its descriptors stay shared.
                unsafe { unshare_unsafe(UnshareFlags::FS) }?;
                move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
                Ok(move_mount(
                    tree,
                    "",
                    CWD,
                    MOUNT_POINT,
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )?)
            })?;
        work.join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    })
}
