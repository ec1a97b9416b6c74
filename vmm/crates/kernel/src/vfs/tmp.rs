//! A private, bounded file system in memory: its tree. What a file holds is in `tmp_data.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vmm_abi::{
    Errno, O_ACCMODE, O_DIRECTORY, O_TRUNC, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
    Stat, Timespec,
};

use super::tmp_data::Data;
use super::{DirEntry, Node};
use crate::clock;
use crate::file::File;
use crate::pipe::Fifo;

/// What one file system may hold.
#[derive(Clone, Copy, Debug)]
pub struct TmpLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links together.
    pub nodes: u64,
}

/// What all nodes of a file system share.
pub(super) struct Shared {
    limits: TmpLimits,
    used_bytes: AtomicU64,
    used_nodes: AtomicU64,
    next_ino: AtomicU64,
    /// Held by whoever moves names between folders.
    moving: Mutex<()>,
}

impl Shared {
    fn charge(counter: &AtomicU64, limit: u64, amount: u64) -> Result<(), Errno> {
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

    pub(super) fn charge_bytes(&self, amount: u64) -> Result<(), Errno> {
        Self::charge(&self.used_bytes, self.limits.bytes, amount)
    }

    pub(super) fn release_bytes(&self, amount: u64) {
        Self::release(&self.used_bytes, amount);
    }

    fn charge_node(&self) -> Result<(), Errno> {
        Self::charge(&self.used_nodes, self.limits.nodes, 1)
    }
}

type Children = Mutex<BTreeMap<Vec<u8>, Arc<TmpNode>>>;

pub(super) enum Body {
    File(Data),
    Folder(Children),
    Link(Vec<u8>),
    Fifo(Fifo),
    /// A socket's name: what it stands for, the network knows.
    Socket,
}

/// Where a folder is.
enum Place {
    /// It is a root, mounted there.
    Root(&'static str),
    In(Weak<TmpNode>, Vec<u8>),
    /// Removed, or not a folder.
    Nowhere,
}

#[derive(Clone, Copy)]
struct Times {
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

/// A file, folder or link. It is an open file too: both are the same thing here.
pub(super) struct TmpNode {
    pub(super) shared: Arc<Shared>,
    ino: u64,
    mode: AtomicU32,
    /// Names that stand for it; of a folder also the `.` in it and the `..` of the folders below.
    links: AtomicU32,
    times: Mutex<Times>,
    place: Mutex<Place>,
    pub(super) body: Body,
    me: Weak<TmpNode>,
}

fn now() -> Timespec {
    Timespec::from_ns(clock::realtime_ns())
}

impl TmpNode {
    fn new(shared: &Arc<Shared>, mode: u32, body: Body, place: Place) -> Result<Arc<Self>, Errno> {
        shared.charge_node()?;
        let born = now();
        let links = if matches!(body, Body::Folder(_)) {
            2
        } else {
            1
        };
        Ok(Arc::new_cyclic(|me| Self {
            shared: Arc::clone(shared),
            ino: shared.next_ino.fetch_add(1, Ordering::Relaxed),
            mode: AtomicU32::new(mode),
            links: AtomicU32::new(links),
            times: Mutex::new(Times {
                atime: born,
                mtime: born,
                ctime: born,
            }),
            place: Mutex::new(place),
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

    /// The children of a folder that may get more: a removed one may not.
    fn living_folder(&self) -> Result<&Children, Errno> {
        let children = self.folder()?;
        if matches!(*self.place.lock(), Place::Nowhere) {
            return Err(Errno::ENOENT);
        }
        Ok(children)
    }

    /// The inode number that the next node of this file system gets.
    pub(super) fn next_ino(&self) -> u64 {
        self.shared.next_ino.load(Ordering::Relaxed)
    }

    pub(super) fn set_next_ino(&self, next: u64) {
        self.shared.next_ino.store(next, Ordering::Relaxed);
    }

    /// Sets all three times as they were once: of access, of change, of attribute change.
    pub(super) fn set_all_times(&self, [atime, mtime, ctime]: [Timespec; 3]) {
        let times = Times {
            atime,
            mtime,
            ctime,
        };
        *self.times.lock() = times;
    }

    fn kind(&self) -> u32 {
        self.mode.load(Ordering::Relaxed) & S_IFMT
    }

    fn is_folder(&self) -> bool {
        matches!(self.body, Body::Folder(_))
    }

    fn this(&self) -> Result<Arc<TmpNode>, Errno> {
        self.me.upgrade().ok_or(Errno::ENOENT)
    }

    /// Notes that the contents changed.
    pub(super) fn touch(&self) {
        let mut times = self.times.lock();
        let now = now();
        (times.mtime, times.ctime) = (now, now);
    }

    fn touch_attributes(&self) {
        self.times.lock().ctime = now();
    }

    pub(super) fn attributes(&self) -> Stat {
        let times = *self.times.lock();
        let (size, bytes) = match &self.body {
            Body::File(data) => data.size_and_used(),
            Body::Folder(_) => (4096, 0),
            Body::Link(target) => (target.len() as u64, 0),
            Body::Fifo(_) | Body::Socket => (0, 0),
        };
        let links = match &self.body {
            Body::Folder(_) if matches!(*self.place.lock(), Place::Nowhere) => 0,
            _ => u64::from(self.links.load(Ordering::Relaxed)),
        };
        Stat {
            dev: 0x2a,
            ino: self.ino,
            nlink: links,
            mode: self.mode.load(Ordering::Relaxed),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            blksize: 4096,
            blocks: i64::try_from(bytes / 512).unwrap_or(i64::MAX),
            atime: times.atime,
            mtime: times.mtime,
            ctime: times.ctime,
            ..Stat::default()
        }
    }

    pub(super) fn list(&self) -> Result<Vec<DirEntry>, Errno> {
        let entry = |(name, node): (&Vec<u8>, &Arc<TmpNode>)| DirEntry {
            name: name.clone(),
            ino: node.ino,
            kind: (node.kind() >> 12) as u8,
        };
        Ok(self.folder()?.lock().iter().map(entry).collect())
    }

    /// What happens to a node whose name was taken away or replaced.
    fn lost_name(&self) {
        if self.is_folder() {
            *self.place.lock() = Place::Nowhere;
            return;
        }
        let before = self.links.fetch_sub(1, Ordering::Relaxed);
        if before > 1 {
            // The name of a hard link was charged as a node of its own.
            Shared::release(&self.shared.used_nodes, 1);
        }
        self.touch_attributes();
    }

    /// Says that this is in a folder now.
    fn settle(&self, folder: &TmpNode, name: &[u8]) {
        if self.is_folder() {
            folder.links.fetch_add(1, Ordering::Relaxed);
            *self.place.lock() = Place::In(Weak::clone(&folder.me), name.to_vec());
        }
        self.touch_attributes();
    }

    /// Says that this is not in a folder any more, where it has been.
    fn leave(&self, folder: &TmpNode) {
        if self.is_folder() {
            folder.links.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn body_for(&self, mode: u32, target: Option<&[u8]>) -> Result<Body, Errno> {
        Ok(match (target, mode & S_IFMT) {
            (Some(target), _) => Body::Link(target.to_vec()),
            (None, S_IFDIR) => Body::Folder(Mutex::new(BTreeMap::new())),
            (None, S_IFSOCK) => Body::Socket,
            (None, S_IFIFO) => Body::Fifo(Fifo::new(self.ino)),
            (None, S_IFREG) => Body::File(Data::new(false)?),
            _ => return Err(Errno::EPERM),
        })
    }

    fn same_system<'a>(&self, other: &'a Arc<dyn Node>) -> Result<&'a TmpNode, Errno> {
        let other = other.as_any().downcast_ref::<TmpNode>();
        other
            .filter(|other| Arc::ptr_eq(&self.shared, &other.shared))
            .ok_or(Errno::EXDEV)
    }

    fn child(&self, name: &[u8]) -> Result<Arc<TmpNode>, Errno> {
        let children = self.folder()?.lock();
        children.get(name).cloned().ok_or(Errno::ENOENT)
    }
}

impl Drop for TmpNode {
    fn drop(&mut self) {
        Shared::release(&self.shared.used_nodes, 1);
        if let Body::File(data) = &self.body {
            self.shared.release_bytes(data.size());
        }
    }
}

impl Node for TmpNode {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.attributes())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        self.child(name).map(|node| node as Arc<dyn Node>)
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        match &self.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        match &self.body {
            Body::Folder(_) if flags & O_ACCMODE != 0 => Err(Errno::EISDIR),
            Body::Folder(_) => Ok(self.this()?),
            _ if flags & O_DIRECTORY != 0 => Err(Errno::ENOTDIR),
            Body::Link(_) => Err(Errno::ELOOP),
            Body::Socket => Err(Errno::ENXIO),
            Body::Fifo(fifo) => fifo.open(flags),
            Body::File(data) => {
                if flags & O_TRUNC != 0 {
                    data.resize(&self.shared, 0)?;
                    self.touch();
                }
                Ok(self.this()?)
            }
        }
    }

    fn create(
        &self,
        name: &[u8],
        mode: u32,
        target: Option<&[u8]>,
    ) -> Result<Arc<dyn Node>, Errno> {
        let mut children = self.living_folder()?.lock();
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let body = self.body_for(mode, target)?;
        let mode = if target.is_some() {
            S_IFLNK | 0o777
        } else {
            mode
        };
        let node = Self::new(&self.shared, mode, body, Place::Nowhere)?;
        node.settle(self, name);
        children.insert(name.to_vec(), Arc::clone(&node));
        drop(children);
        self.touch();
        Ok(node)
    }

    fn unnamed(&self, mode: u32) -> Result<Arc<dyn Node>, Errno> {
        self.living_folder()?;
        let body = Body::File(Data::new(false)?);
        let node = Self::new(&self.shared, S_IFREG | mode, body, Place::Nowhere)?;
        node.links.store(0, Ordering::Relaxed);
        Ok(node)
    }

    fn memory_file(&self, mode: u32, sealable: bool) -> Result<Arc<dyn Node>, Errno> {
        let body = Body::File(Data::new(sealable)?);
        let node = Self::new(&self.shared, S_IFREG | mode, body, Place::Nowhere)?;
        node.links.store(0, Ordering::Relaxed);
        Ok(node)
    }

    fn link(&self, name: &[u8], node: &Arc<dyn Node>) -> Result<(), Errno> {
        let node = self.same_system(node)?;
        if node.is_folder() {
            return Err(Errno::EPERM);
        }
        let mut children = self.living_folder()?.lock();
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let links = node.links.load(Ordering::Relaxed);
        if links > 0 {
            self.shared.charge_node()?;
        }
        node.links.store(links.saturating_add(1), Ordering::Relaxed);
        children.insert(name.to_vec(), node.this()?);
        drop(children);
        node.touch_attributes();
        self.touch();
        Ok(())
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
        let gone = children.remove(name);
        drop(children);
        if let Some(gone) = gone {
            gone.leave(self);
            gone.lost_name();
        }
        self.touch();
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &Arc<dyn Node>, new_name: &[u8]) -> Result<(), Errno> {
        let target = self.same_system(to)?;
        let _moving = self.shared.moving.lock();
        let moved = self.child(name)?;
        if holds(&moved, target) {
            return Err(Errno::EINVAL);
        }
        // The replaced node must be of a like kind (rename(2)); an empty folder may be replaced.
        let existing = target.living_folder()?.lock().get(new_name).cloned();
        if let Some(existing) = &existing {
            if Arc::ptr_eq(existing, &moved) {
                return Ok(());
            }
            match (moved.is_folder(), existing.folder()) {
                (true, Err(_)) => return Err(Errno::ENOTDIR),
                (_, Ok(children)) if !children.lock().is_empty() => return Err(Errno::ENOTEMPTY),
                (false, Ok(_)) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        self.folder()?.lock().remove(name);
        moved.leave(self);
        moved.settle(target, new_name);
        target.folder()?.lock().insert(new_name.to_vec(), moved);
        if let Some(existing) = existing {
            existing.leave(target);
            existing.lost_name();
        }
        self.touch();
        target.touch();
        Ok(())
    }

    fn exchange(&self, name: &[u8], to: &Arc<dyn Node>, other: &[u8]) -> Result<(), Errno> {
        let target = self.same_system(to)?;
        let _moving = self.shared.moving.lock();
        let (one, two) = (self.child(name)?, target.child(other)?);
        if holds(&one, target) || holds(&two, self) {
            return Err(Errno::EINVAL);
        }
        one.leave(self);
        two.leave(target);
        one.settle(target, other);
        two.settle(self, name);
        self.folder()?.lock().insert(name.to_vec(), two);
        target.folder()?.lock().insert(other.to_vec(), one);
        self.touch();
        target.touch();
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        self.mode
            .store(self.kind() | (mode & 0o7777), Ordering::Relaxed);
        self.touch_attributes();
        Ok(())
    }

    fn set_times(&self, atime: Option<Timespec>, mtime: Option<Timespec>) -> Result<(), Errno> {
        let mut times = self.times.lock();
        times.atime = atime.unwrap_or(times.atime);
        times.mtime = mtime.unwrap_or(times.mtime);
        times.ctime = now();
        Ok(())
    }

    fn path_now(&self) -> Option<Result<Vec<u8>, Errno>> {
        if !self.is_folder() {
            return None;
        }
        let mut names = Vec::new();
        let mut node = self.me.upgrade();
        loop {
            let Some(current) = node else {
                return Some(Err(Errno::ENOENT));
            };
            let place = current.place.lock();
            match &*place {
                Place::Root(at) => {
                    names.push(at.as_bytes().to_vec());
                    names.reverse();
                    return Some(Ok(names.join(&b'/')));
                }
                Place::Nowhere => return Some(Err(Errno::ENOENT)),
                Place::In(parent, name) => {
                    names.push(name.clone());
                    node = parent.upgrade();
                }
            }
        }
    }

    fn is_fifo(&self) -> bool {
        matches!(self.body, Body::Fifo(_))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Whether `inner` is `outer` or lies below it, so that moving `outer` there would make a circle.
fn holds(outer: &TmpNode, inner: &TmpNode) -> bool {
    let mut at = inner.me.upgrade();
    while let Some(node) = at {
        if node.ino == outer.ino {
            return true;
        }
        at = match &*node.place.lock() {
            Place::In(parent, _) => parent.upgrade(),
            _ => None,
        };
    }
    false
}

/// Empty trees that share their limits, to be mounted at these places.
///
/// # Errors
/// ENOSPC when the limits do not even allow the roots.
pub fn tmp_trees<const N: usize>(
    limits: TmpLimits,
    places: [&'static str; N],
) -> Result<[Arc<dyn Node>; N], Errno> {
    let shared = Arc::new(Shared {
        limits,
        used_bytes: AtomicU64::new(0),
        used_nodes: AtomicU64::new(0),
        next_ino: AtomicU64::new(1),
        moving: Mutex::default(),
    });
    let mut roots: Vec<Arc<dyn Node>> = Vec::new();
    for at in places {
        let body = Body::Folder(Mutex::new(BTreeMap::new()));
        let root = TmpNode::new(&shared, S_IFDIR | 0o1777, body, Place::Root(at))?;
        roots.push(root);
    }
    roots.try_into().map_err(|_| Errno::ENOSPC)
}
