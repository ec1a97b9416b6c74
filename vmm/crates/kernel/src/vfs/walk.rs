use std::collections::BTreeMap;
use std::sync::Arc;

use vmm_abi::{Errno, O_ACCMODE, O_WRONLY, S_IFDIR, S_IFLNK, S_IFMT, S_IFSOCK, Stat};

use super::Node;
use crate::file::{File, OpenFile};

/// Most symbolic links in one walk, and bytes of a name (path_resolution(7), limits.h).
const MAX_LINKS: usize = 40;
const NAME_MAX: usize = 255;

/// Where a walk ended.
#[derive(Clone)]
pub struct Walked {
    /// Directory that holds (or would hold) the last name.
    pub parent: Arc<dyn Node>,
    /// The last name; empty when the path names a directory by `/`, `.` or `..` alone.
    pub name: Vec<u8>,
    /// The node, when there is one.
    pub node: Option<Arc<dyn Node>>,
    /// Absolute path with no links, `.` or `..` in it.
    pub path: Vec<u8>,
    /// Whether the path ended in a slash, so that only a directory will do.
    pub directory_wanted: bool,
}

impl std::fmt::Debug for Walked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Walked({})", String::from_utf8_lossy(&self.path))
    }
}

impl Walked {
    /// The node.
    ///
    /// # Errors
    /// ENOENT when there is none, ENOTDIR when a directory was asked for and it is none.
    pub fn node(&self) -> Result<&Arc<dyn Node>, Errno> {
        let node = self.node.as_ref().ok_or(Errno::ENOENT)?;
        if self.directory_wanted && !is_directory(node)? {
            return Err(Errno::ENOTDIR);
        }
        Ok(node)
    }
}

fn is_directory(node: &Arc<dyn Node>) -> Result<bool, Errno> {
    Ok(node.stat()?.mode & S_IFMT == S_IFDIR)
}

/// A name and the node it led to.
type Place = (Vec<u8>, Arc<dyn Node>);

/// What a walk may do (openat2(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Never leave the directory it starts from (RESOLVE_BENEATH).
    pub beneath: bool,
    /// That directory is the root (RESOLVE_IN_ROOT).
    pub in_root: bool,
    /// Follow no symbolic link (RESOLVE_NO_SYMLINKS).
    pub no_links: bool,
}

/// An open file in the place of the link in /proc/self/fd that was followed to it.
struct OpenedNode(Arc<OpenFile>);

impl OpenedNode {
    fn of(open: Arc<OpenFile>) -> Arc<dyn Node> {
        match &open.node {
            Some(node) => Arc::clone(node),
            None => Arc::new(Self(open)),
        }
    }
}

impl Node for OpenedNode {
    fn stat(&self) -> Result<Stat, Errno> {
        self.0.file.stat()
    }

    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        let wanted = flags & O_ACCMODE;
        let (read, write) = (wanted != O_WRONLY, wanted != 0);
        if self.stat()?.mode & S_IFMT == S_IFSOCK {
            return Err(Errno::ENXIO);
        }
        // The other end of a pipe is not to be had from this one.
        if (read && !self.0.readable()) || (write && !self.0.writable()) {
            return Err(Errno::EACCES);
        }
        Ok(Arc::clone(&self.0.file))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// The file systems of a guest by where they are mounted.
#[derive(Clone)]
pub struct Vfs {
    mounts: BTreeMap<Vec<u8>, Arc<dyn Node>>,
    root: Arc<dyn Node>,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vfs({} mounts)", self.mounts.len())
    }
}

impl Vfs {
    /// A tree with this root and nothing mounted on it.
    #[must_use]
    pub fn new(root: Arc<dyn Node>) -> Self {
        Self {
            mounts: BTreeMap::new(),
            root,
        }
    }

    /// Mounts a node at an absolute path without `.`, `..` or a closing slash. The directory that
    /// holds it must exist; the name itself need not.
    pub fn mount(&mut self, path: &str, node: Arc<dyn Node>) {
        self.mounts.insert(path.as_bytes().to_vec(), node);
    }

    /// Mount points, by path.
    pub fn mount_points(&self) -> impl Iterator<Item = &[u8]> {
        self.mounts.keys().map(Vec::as_slice)
    }

    /// Walks `path` from the absolute directory path `from`. A link in the last place is followed
    /// when `follow` says so.
    ///
    /// # Errors
    /// ENOENT for an empty path or a missing directory on the way, ENOTDIR, ELOOP, ENAMETOOLONG.
    pub fn walk(&self, from: &[u8], path: &[u8], follow: bool) -> Result<Walked, Errno> {
        self.walk_bound(from, path, follow, Bounds::default())
    }

    /// As [`Vfs::walk`], within bounds.
    ///
    /// # Errors
    /// Also EXDEV where the path leaves them, ELOOP for a link that may not be followed.
    pub fn walk_bound(
        &self,
        from: &[u8],
        path: &[u8],
        follow: bool,
        how: Bounds,
    ) -> Result<Walked, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut pending: Vec<Vec<u8>> = Vec::new();
        push_reversed(&mut pending, path);
        let mut trail: Vec<Place> = Vec::new();
        if !path.starts_with(b"/") || how.in_root {
            trail = self.trail_of(from)?;
        } else if how.beneath {
            return Err(Errno::EXDEV);
        }
        let floor = if how.beneath || how.in_root {
            trail.len()
        } else {
            0
        };
        let mut links = 0usize;
        let mut missing: Option<Vec<u8>> = None;
        let directory_wanted = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
        while let Some(name) = pending.pop() {
            if missing.is_some() {
                return Err(Errno::ENOENT);
            }
            match name.as_slice() {
                b"" | b"." => self.require_directory(&trail)?,
                b".." => {
                    self.require_directory(&trail)?;
                    if trail.len() > floor {
                        trail.pop();
                    } else if how.beneath {
                        return Err(Errno::EXDEV);
                    }
                }
                _ if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
                _ => match self.step(&trail, &name) {
                    Ok(node) => {
                        let last = pending.is_empty() && !directory_wanted;
                        if node.stat()?.mode & S_IFMT != S_IFLNK || (last && !follow) {
                            trail.push((name, node));
                            continue;
                        }
                        links = links.saturating_add(1);
                        if links > MAX_LINKS || how.no_links {
                            return Err(Errno::ELOOP);
                        }
                        if let Some(open) = node.opened() {
                            trail.push((name, OpenedNode::of(open)));
                            continue;
                        }
                        let target = node.read_link()?;
                        if target.is_empty() {
                            return Err(Errno::ENOENT);
                        }
                        if target.starts_with(b"/") {
                            if how.beneath {
                                return Err(Errno::EXDEV);
                            }
                            trail.truncate(floor);
                        }
                        push_reversed(&mut pending, &target);
                    }
                    Err(Errno::ENOENT) => missing = Some(name),
                    Err(errno) => return Err(errno),
                },
            }
        }
        Ok(self.finish(trail, missing, directory_wanted))
    }

    fn finish(
        &self,
        mut trail: Vec<Place>,
        missing: Option<Vec<u8>>,
        directory_wanted: bool,
    ) -> Walked {
        let (name, node) = match missing {
            Some(name) => (name, None),
            None => match trail.pop() {
                Some((name, node)) => (name, Some(node)),
                None => (Vec::new(), Some(Arc::clone(&self.root))),
            },
        };
        let parent = trail.last().map_or(&self.root, |(_, node)| node);
        let mut path = path_of(&trail);
        if !name.is_empty() {
            path = join(&path, &name);
        }
        Walked {
            parent: Arc::clone(parent),
            name,
            node,
            path,
            directory_wanted,
        }
    }

    fn require_directory(&self, trail: &[Place]) -> Result<(), Errno> {
        match trail.last() {
            Some((_, node)) if !is_directory(node)? => Err(Errno::ENOTDIR),
            _ => Ok(()),
        }
    }

    fn step(&self, trail: &[Place], name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        if !self.mounts.is_empty()
            && let Some(mounted) = self.mounts.get(&join(&path_of(trail), name))
        {
            return Ok(Arc::clone(mounted));
        }
        trail
            .last()
            .map_or(&self.root, |(_, node)| node)
            .lookup(name)
    }

    /// The nodes along an absolute path that was clean when it was made (a working directory).
    fn trail_of(&self, path: &[u8]) -> Result<Vec<Place>, Errno> {
        let mut trail = Vec::new();
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let node = self.step(&trail, name)?;
            trail.push((name.to_vec(), node));
        }
        Ok(trail)
    }
}

fn push_reversed(pending: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    pending.extend(
        names
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
            .into_iter()
            .rev(),
    );
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn path_of(trail: &[Place]) -> Vec<u8> {
    let mut path = Vec::new();
    for (name, _) in trail {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}
