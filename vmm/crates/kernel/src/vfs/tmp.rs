//! A private, bounded file system in memory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use vmm_abi::{
    Errno, Iovec, O_ACCMODE, O_DIRECTORY, O_TRUNC, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
    Stat, Timespec,
};
use vmm_memory::AddressSpace;

use super::host::{convert, read_at, write_at};
use super::text::ListedDir;
use super::{DirEntry, Node};
use crate::clock;
use crate::file::File;

/// What one file system may hold.
#[derive(Clone, Copy, Debug)]
pub struct TmpLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links together.
    pub nodes: u64,
}

struct Shared {
    limits: TmpLimits,
    used_bytes: AtomicU64,
    used_nodes: AtomicU64,
    next_ino: AtomicU64,
}

impl Shared {
    fn charge(&self, counter: &AtomicU64, limit: u64, amount: u64) -> Result<(), Errno> {
        let add = |used: u64| used.checked_add(amount).filter(|sum| *sum <= limit);
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map(|_| ())
            .map_err(|_| Errno::ENOSPC)
    }

    fn release(counter: &AtomicU64, amount: u64) {
        let take = |used: u64| Some(used.saturating_sub(amount));
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }
}

type Children = Mutex<BTreeMap<Vec<u8>, Arc<TmpNode>>>;

enum Body {
    File {
        fd: OwnedFd,
        size: Mutex<u64>,
    },
    Folder(Children),
    Link(Vec<u8>),
    /// A socket's name: what it stands for, the network knows.
    Socket,
}

/// A file, folder or link. It is an open file too: both are the same thing here.
struct TmpNode {
    shared: Arc<Shared>,
    ino: u64,
    mode: AtomicU32,
    born: Timespec,
    body: Body,
    me: Weak<TmpNode>,
}

impl TmpNode {
    fn new(shared: &Arc<Shared>, mode: u32, body: Body) -> Result<Arc<Self>, Errno> {
        shared.charge(&shared.used_nodes, shared.limits.nodes, 1)?;
        let ino = shared.next_ino.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new_cyclic(|me| Self {
            shared: Arc::clone(shared),
            ino,
            mode: AtomicU32::new(mode),
            born: Timespec::from_ns(clock::realtime_ns()),
            body,
            me: Weak::clone(me),
        }))
    }

    fn folder(&self) -> Result<&Children, Errno> {
        match &self.body {
            Body::Folder(children) => Ok(children),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn kind(&self) -> u32 {
        self.mode.load(Ordering::Relaxed) & S_IFMT
    }

    fn attributes(&self) -> Result<Stat, Errno> {
        let base = match &self.body {
            Body::File { fd, .. } => {
                convert(&fstat(fd).map_err(|error| Errno(error.raw_os_error()))?)
            }
            Body::Folder(_) => Stat {
                size: 4096,
                ..Stat::default()
            },
            Body::Socket => Stat::default(),
            Body::Link(target) => Stat {
                size: i64::try_from(target.len()).unwrap_or(0),
                ..Stat::default()
            },
        };
        let times = |time: Timespec| {
            if time == Timespec::default() {
                self.born
            } else {
                time
            }
        };
        Ok(Stat {
            dev: 0x2a,
            ino: self.ino,
            nlink: if self.kind() == S_IFDIR { 2 } else { 1 },
            mode: self.mode.load(Ordering::Relaxed),
            blksize: 4096,
            atime: times(base.atime),
            mtime: times(base.mtime),
            ctime: times(base.ctime),
            ..base
        })
    }

    fn resize(&self, fd: &OwnedFd, size: &mut u64, wanted: u64) -> Result<(), Errno> {
        let (shared, limit) = (&self.shared, self.shared.limits.bytes);
        if let Some(growth) = wanted.checked_sub(*size) {
            shared.charge(&shared.used_bytes, limit, growth)?;
        }
        ftruncate(fd, wanted).map_err(|error| Errno(error.raw_os_error()))?;
        if let Some(shrink) = size.checked_sub(wanted) {
            Shared::release(&shared.used_bytes, shrink);
        }
        *size = wanted;
        Ok(())
    }
}

impl Drop for TmpNode {
    fn drop(&mut self) {
        Shared::release(&self.shared.used_nodes, 1);
        if let Body::File { size, .. } = &self.body {
            Shared::release(&self.shared.used_bytes, *size.lock());
        }
    }
}

impl Node for TmpNode {
    fn stat(&self) -> Result<Stat, Errno> {
        self.attributes()
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let children = self.folder()?.lock();
        children
            .get(name)
            .map(|node| Arc::clone(node) as Arc<dyn Node>)
            .ok_or(Errno::ENOENT)
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        match &self.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        match &self.body {
            Body::Folder(children) => {
                if flags & O_ACCMODE != 0 {
                    return Err(Errno::EISDIR);
                }
                let list = children.lock();
                let entry = |(name, node): (&Vec<u8>, &Arc<TmpNode>)| DirEntry {
                    name: name.clone(),
                    ino: node.ino,
                    kind: (node.kind() >> 12) as u8,
                };
                let entries = list.iter().map(entry).collect();
                Ok(Arc::new(ListedDir {
                    stat: self.attributes()?,
                    entries,
                }))
            }
            Body::Link(_) => Err(Errno::ELOOP),
            Body::Socket => Err(Errno::ENXIO),
            Body::File { fd, size } => {
                if flags & O_DIRECTORY != 0 {
                    return Err(Errno::ENOTDIR);
                }
                if flags & O_TRUNC != 0 {
                    self.resize(fd, &mut size.lock(), 0)?;
                }
                self.me
                    .upgrade()
                    .map(|node| node as Arc<dyn File>)
                    .ok_or(Errno::ENOENT)
            }
        }
    }

    fn create(
        &self,
        name: &[u8],
        mode: u32,
        target: Option<&[u8]>,
    ) -> Result<Arc<dyn Node>, Errno> {
        let mut children = self.folder()?.lock();
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let body = match (target, mode & S_IFMT) {
            (Some(target), _) => Body::Link(target.to_vec()),
            (None, S_IFDIR) => Body::Folder(Mutex::new(BTreeMap::new())),
            (None, S_IFSOCK) => Body::Socket,
            (None, S_IFREG) => {
                let fd = memfd_create("tmp", MemfdFlags::CLOEXEC)
                    .map_err(|error| Errno(error.raw_os_error()))?;
                Body::File {
                    fd,
                    size: Mutex::new(0),
                }
            }
            _ => return Err(Errno::EPERM),
        };
        let mode = if target.is_some() {
            S_IFLNK | 0o777
        } else {
            mode
        };
        let node = Self::new(&self.shared, mode, body)?;
        children.insert(name.to_vec(), Arc::clone(&node));
        Ok(node)
    }

    fn remove(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let mut children = self.folder()?.lock();
        let node = children.get(name).ok_or(Errno::ENOENT)?;
        match &node.body {
            Body::Folder(_) if !directory => return Err(Errno::EISDIR),
            Body::Folder(inner) if !inner.lock().is_empty() => return Err(Errno::ENOTEMPTY),
            Body::Folder(_) => {}
            _ if directory => return Err(Errno::ENOTDIR),
            _ => {}
        }
        children.remove(name);
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &Arc<dyn Node>, new_name: &[u8]) -> Result<(), Errno> {
        let target = to.as_any().downcast_ref::<TmpNode>().ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&self.shared, &target.shared) {
            return Err(Errno::EXDEV);
        }
        let moved = self
            .folder()?
            .lock()
            .get(name)
            .cloned()
            .ok_or(Errno::ENOENT)?;
        if holds(&moved, target) {
            return Err(Errno::EINVAL);
        }
        // The replaced node must be of a like kind (rename(2)); an empty folder may be replaced.
        let existing = target.folder()?.lock().get(new_name).cloned();
        if let Some(existing) = existing {
            if Arc::ptr_eq(&existing, &moved) {
                return Ok(());
            }
            match (moved.kind() == S_IFDIR, existing.kind() == S_IFDIR) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !existing.folder()?.lock().is_empty() => {
                    return Err(Errno::ENOTEMPTY);
                }
                _ => {}
            }
        }
        self.folder()?.lock().remove(name);
        target.folder()?.lock().insert(new_name.to_vec(), moved);
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        self.mode
            .store(self.kind() | (mode & 0o7777), Ordering::Relaxed);
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Whether `inner` is `outer` or lies below it, so that moving `outer` there would make a circle.
fn holds(outer: &Arc<TmpNode>, inner: &TmpNode) -> bool {
    let mut pending = vec![Arc::clone(outer)];
    while let Some(node) = pending.pop() {
        if node.ino == inner.ino {
            return true;
        }
        if let Body::Folder(children) = &node.body {
            pending.extend(
                children
                    .lock()
                    .values()
                    .filter(|n| n.kind() == S_IFDIR)
                    .cloned(),
            );
        }
    }
    false
}

impl File for TmpNode {
    fn stat(&self) -> Result<Stat, Errno> {
        self.attributes()
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], offset: u64) -> Result<u64, Errno> {
        match &self.body {
            Body::File { fd, .. } => read_at(fd.as_fd(), memory, to, offset),
            _ => Err(Errno::EISDIR),
        }
    }

    fn write(&self, memory: &AddressSpace, from: &[Iovec], offset: u64) -> Result<u64, Errno> {
        let Body::File { fd, size } = &self.body else {
            return Err(Errno::EISDIR);
        };
        let total = from
            .iter()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.len));
        let end = offset.checked_add(total).ok_or(Errno::EFBIG)?;
        let mut size = size.lock();
        let before = *size;
        if end > before {
            self.resize(fd, &mut size, end)?;
        }
        let result = write_at(fd.as_fd(), memory, from, offset);
        let written = offset.saturating_add(*result.as_ref().unwrap_or(&0));
        if end > before && written < end {
            self.resize(fd, &mut size, written.max(before))?;
        }
        result
    }

    fn size(&self) -> Option<u64> {
        match &self.body {
            Body::File { size, .. } => Some(*size.lock()),
            _ => None,
        }
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.body {
            Body::File { fd, .. } => Some(fd.as_fd()),
            _ => None,
        }
    }

    fn truncate(&self, wanted: u64) -> Result<(), Errno> {
        match &self.body {
            Body::File { fd, size } => self.resize(fd, &mut size.lock(), wanted),
            _ => Err(Errno::EINVAL),
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// An empty tree, to be mounted at /tmp.
///
/// # Errors
/// ENOSPC when the limits do not even allow the root.
pub fn tmp_tree(limits: TmpLimits) -> Result<Arc<dyn Node>, Errno> {
    let shared = Arc::new(Shared {
        limits,
        used_bytes: AtomicU64::new(0),
        used_nodes: AtomicU64::new(0),
        next_ino: AtomicU64::new(1),
    });
    let body = Body::Folder(Mutex::new(BTreeMap::new()));
    Ok(TmpNode::new(&shared, S_IFDIR | 0o1777, body)?)
}
