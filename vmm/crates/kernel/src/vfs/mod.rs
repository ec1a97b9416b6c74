//! Files by name: a tree of mounts, walked component by component so that links and `..` never leave
//! the guest's own root.

mod dev;
mod host;
mod proc;
mod text;
mod tmp;
mod tmp_data;
mod tmp_state;
mod walk;

use std::sync::Arc;

use vmm_abi::{Errno, Stat, Timespec};

use crate::file::{File, OpenFile};

pub use dev::{dev_tree, random};
pub use host::{HostFile, HostNode};
pub use proc::{proc_tree, sys_tree};
pub use text::{StaticDir, TextNode};
pub use tmp::{TmpLimits, tmp_trees};
pub(crate) use tmp_state::{TmpCapture, TmpRestored};
pub use walk::{Bounds, Vfs, Walked};

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub ino: u64,
    /// DT_* of getdents64(2): the file type bits of the mode, shifted down by 12.
    pub kind: u8,
}

/// Something with a place in the tree. What a kind of node cannot do is refused by the defaults.
pub trait Node: Send + Sync {
    /// Attributes of the node itself (lstat).
    ///
    /// # Errors
    /// What the backing says.
    fn stat(&self) -> Result<Stat, Errno>;

    /// The child of that name, which is neither `.`, `..` nor empty and holds no slash.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL for anything else.
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    /// Opens the node for the access mode in `flags` (O_*).
    ///
    /// # Errors
    /// EROFS, EISDIR, EACCES, ENXIO.
    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno>;

    /// Makes a regular file, directory or (with a target) symbolic link.
    ///
    /// # Errors
    /// EROFS on file systems that cannot be written, EEXIST, ENOSPC.
    fn create(
        &self,
        name: &[u8],
        mode: u32,
        target: Option<&[u8]>,
    ) -> Result<Arc<dyn Node>, Errno> {
        let _ = (name, mode, target);
        Err(Errno::EROFS)
    }

    /// Makes a regular file without a name (O_TMPFILE).
    ///
    /// # Errors
    /// EOPNOTSUPP, ENOENT for a removed directory, ENOSPC.
    fn unnamed(&self, mode: u32) -> Result<Arc<dyn Node>, Errno> {
        let _ = mode;
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a file of memory without a name (memfd_create(2)), on a file system that has such.
    ///
    /// # Errors
    /// ENOSYS, ENOSPC.
    fn memory_file(&self, mode: u32, sealable: bool) -> Result<Arc<dyn Node>, Errno> {
        let _ = (mode, sealable);
        Err(Errno::ENOSYS)
    }

    /// Gives a node another name, in this directory (link(2)).
    ///
    /// # Errors
    /// EROFS, EXDEV, EEXIST, EPERM for a directory.
    fn link(&self, name: &[u8], node: &Arc<dyn Node>) -> Result<(), Errno> {
        let _ = (name, node);
        Err(Errno::EROFS)
    }

    /// Lets two children change places (RENAME_EXCHANGE).
    ///
    /// # Errors
    /// As [`Node::rename`].
    fn exchange(&self, name: &[u8], to: &Arc<dyn Node>, other: &[u8]) -> Result<(), Errno> {
        let _ = (name, to, other);
        Err(Errno::EROFS)
    }

    /// Removes a child; a directory only when `directory` says so and it is empty.
    ///
    /// # Errors
    /// EROFS, ENOENT, EISDIR, ENOTDIR, ENOTEMPTY.
    fn remove(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let _ = (name, directory);
        Err(Errno::EROFS)
    }

    /// Moves a child to another directory of the same file system.
    ///
    /// # Errors
    /// EROFS, EXDEV, ENOENT and those of [`Node::remove`].
    fn rename(&self, name: &[u8], to: &Arc<dyn Node>, new_name: &[u8]) -> Result<(), Errno> {
        let _ = (name, to, new_name);
        Err(Errno::EROFS)
    }

    /// Changes permission bits.
    ///
    /// # Errors
    /// EROFS.
    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let _ = mode;
        Err(Errno::EROFS)
    }

    /// Changes the times of access and change; `None` leaves one as it is.
    ///
    /// # Errors
    /// EROFS.
    fn set_times(&self, atime: Option<Timespec>, mtime: Option<Timespec>) -> Result<(), Errno> {
        let _ = (atime, mtime);
        Err(Errno::EROFS)
    }

    /// Where a directory that may be moved is now; ENOENT once it is removed. `None` for what stays in place.
    fn path_now(&self) -> Option<Result<Vec<u8>, Errno>> {
        None
    }

    /// The open file that a link in /proc/self/fd stands for, when no path leads there.
    fn opened(&self) -> Option<Arc<OpenFile>> {
        None
    }

    /// Whether opening it may have to wait for another (fifo(7)).
    fn is_fifo(&self) -> bool {
        false
    }

    /// The node as the type it is, for operations between nodes of one file system.
    fn as_any(&self) -> &dyn std::any::Any;
}
