//! Nodes whose contents the monitor makes: folders with fixed names, texts, links.

use std::sync::Arc;

use vmm_abi::{Errno, Iovec, O_ACCMODE, O_DIRECTORY, S_IFDIR, S_IFLNK, S_IFREG, Stat};
use vmm_memory::AddressSpace;

use super::{DirEntry, Node};
use crate::file::File;

/// What C libraries read at once. Linux says 1024; with this each text of a start is one read.
const BLOCK_BYTES: i64 = 8192;

/// Bytes of a file at the time it is opened.
pub type Contents = Arc<dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync>;

/// A read-only file, or a symbolic link, whose contents are made on demand.
#[derive(Clone)]
pub struct TextNode {
    ino: u64,
    mode: u32,
    contents: Contents,
}

impl TextNode {
    /// A file that shows what the function answers when it is opened.
    pub fn file(
        ino: u64,
        contents: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Node> {
        Arc::new(Self {
            ino,
            mode: S_IFREG | 0o444,
            contents: Arc::new(contents),
        })
    }

    /// A symbolic link with a target made on demand.
    pub fn link(
        ino: u64,
        target: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Node> {
        Arc::new(Self {
            ino,
            mode: S_IFLNK | 0o777,
            contents: Arc::new(target),
        })
    }
}

impl Node for TextNode {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0x15,
            ino: self.ino,
            nlink: 1,
            mode: self.mode,
            blksize: BLOCK_BYTES,
            ..Stat::default()
        })
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        if self.mode & S_IFLNK == S_IFLNK {
            (self.contents)()
        } else {
            Err(Errno::EINVAL)
        }
    }

    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        if flags & O_ACCMODE != 0 {
            return Err(Errno::EACCES);
        }
        if flags & O_DIRECTORY != 0 {
            return Err(Errno::ENOTDIR);
        }
        Ok(Arc::new(TextFile {
            stat: self.stat()?,
            bytes: (self.contents)()?,
        }))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

struct TextFile {
    stat: Stat,
    bytes: Vec<u8>,
}

impl File for TextFile {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.stat)
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], offset: u64) -> Result<u64, Errno> {
        let start = usize::try_from(offset)
            .map_err(|_| Errno::EINVAL)?
            .min(self.bytes.len());
        let rest = self.bytes.get(start..).unwrap_or_default();
        memory.scatter(to, rest).map(|count| count as u64)
    }

    fn get(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }

    fn size(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A folder with fixed children, and perhaps more that a function finds.
pub struct StaticDir {
    ino: u64,
    children: Vec<(Vec<u8>, Arc<dyn Node>)>,
    dynamic: Option<Arc<dyn DynamicChildren>>,
}

/// Children of a folder that come and go.
pub trait DynamicChildren: Send + Sync {
    /// The child of that name.
    fn find(&self, name: &[u8]) -> Option<Arc<dyn Node>>;
    /// All names.
    fn names(&self) -> Vec<Vec<u8>>;
}

impl StaticDir {
    /// A folder with these children.
    #[must_use]
    pub fn with(ino: u64, children: Vec<(&str, Arc<dyn Node>)>) -> Arc<dyn Node> {
        let children = children
            .into_iter()
            .map(|(name, node)| (name.as_bytes().to_vec(), node))
            .collect();
        Arc::new(Self {
            ino,
            children,
            dynamic: None,
        })
    }

    /// A folder whose children a function finds.
    #[must_use]
    pub fn dynamic(ino: u64, dynamic: Arc<dyn DynamicChildren>) -> Arc<dyn Node> {
        Arc::new(Self {
            ino,
            children: Vec::new(),
            dynamic: Some(dynamic),
        })
    }

    fn all(&self) -> Vec<(Vec<u8>, Arc<dyn Node>)> {
        let mut all = self.children.clone();
        if let Some(dynamic) = &self.dynamic {
            let found = |name: Vec<u8>| dynamic.find(&name).map(|node| (name, node));
            all.extend(dynamic.names().into_iter().filter_map(found));
        }
        all
    }
}

impl Node for StaticDir {
    fn stat(&self) -> Result<Stat, Errno> {
        let mode = S_IFDIR | 0o555;
        Ok(Stat {
            dev: 0x15,
            ino: self.ino,
            nlink: 2,
            mode,
            blksize: 1024,
            ..Stat::default()
        })
    }

    fn create(&self, _: &[u8], _: u32, _: Option<&[u8]>) -> Result<Arc<dyn Node>, Errno> {
        // As procfs has it: whatever name is not there cannot be.
        Err(Errno::ENOENT)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        if let Some((_, node)) = self.children.iter().find(|(known, _)| known == name) {
            return Ok(Arc::clone(node));
        }
        self.dynamic
            .as_ref()
            .and_then(|dynamic| dynamic.find(name))
            .ok_or(Errno::ENOENT)
    }

    fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        if flags & O_ACCMODE != 0 {
            return Err(Errno::EISDIR);
        }
        let mut entries = Vec::new();
        for (name, node) in self.all() {
            let stat = node.stat()?;
            entries.push(DirEntry {
                name,
                ino: stat.ino,
                kind: (stat.mode >> 12) as u8,
            });
        }
        Ok(Arc::new(ListedDir {
            stat: self.stat()?,
            entries,
        }))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// An open folder whose entries were listed when it was opened.
pub(super) struct ListedDir {
    pub(super) stat: Stat,
    pub(super) entries: Vec<DirEntry>,
}

impl File for ListedDir {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.stat)
    }

    fn read(&self, _: &AddressSpace, _: &[Iovec], _: u64) -> Result<u64, Errno> {
        Err(Errno::EISDIR)
    }

    fn entries(&self) -> Result<Vec<DirEntry>, Errno> {
        Ok(self.entries.clone())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
