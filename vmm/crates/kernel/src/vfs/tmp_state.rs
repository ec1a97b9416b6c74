//! The private file systems as plain data, and back.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_abi::{Errno, PAGE_SIZE, S_IFDIR, S_IFMT, Timespec};
use vmm_memory::{Extent, PageStore};
use vmm_snapshot::{TmpBody, TmpNodeState};

use super::tmp::{Body, TmpNode};
use super::{Node, Vfs};
use crate::file::File;

/// Where the trees are mounted, by the number of the tree.
const TREES: [&str; 2] = ["/tmp", "/dev/shm"];
/// Bytes that are copied at once.
const PIECE: usize = 64 << 10;
const PAGE: usize = PAGE_SIZE as usize;

/// The nodes of all trees, and those without a name that are open.
pub(crate) struct TmpCapture {
    nodes: Vec<(Arc<dyn Node>, TmpNodeState)>,
    places: HashMap<*const TmpNode, u32>,
}

fn of(node: &Arc<dyn Node>) -> Option<&TmpNode> {
    node.as_any().downcast_ref()
}

impl TmpCapture {
    /// Walks all trees.
    pub fn of(vfs: &Vfs) -> Self {
        let mut capture = Self {
            nodes: Vec::new(),
            places: HashMap::new(),
        };
        for (number, path) in (0..).zip(TREES) {
            let root = vfs.walk(b"/", path.as_bytes(), true).ok();
            let root = root.and_then(|walked| walked.node);
            let Some(root) = root.filter(|root| of(root).is_some()) else {
                continue;
            };
            capture.add(&root, TmpBody::Root(number));
        }
        // Folders are appended while the list is walked.
        let mut at = 0;
        while let Some((node, _)) = capture.nodes.get(at) {
            let node = Arc::clone(node);
            capture.add_children(&node, u32::try_from(at).unwrap_or(u32::MAX));
            at = at.saturating_add(1);
        }
        capture
    }

    /// Whether a file is one of these.
    pub fn holds(file: &dyn File) -> bool {
        file.as_any().is::<TmpNode>()
    }

    fn add(&mut self, node: &Arc<dyn Node>, body: TmpBody) -> Option<u32> {
        let tmp = of(node)?;
        if let Some(place) = self.places.get(&std::ptr::from_ref(tmp)) {
            return Some(*place);
        }
        let stat = node.stat().ok()?;
        let time = |time: Timespec| (time.seconds, time.nanoseconds);
        let state = TmpNodeState {
            names: Vec::new(),
            mode: stat.mode,
            times: [stat.atime, stat.mtime, stat.ctime].map(time),
            body,
        };
        let place = u32::try_from(self.nodes.len()).ok()?;
        self.places.insert(std::ptr::from_ref(tmp), place);
        self.nodes.push((Arc::clone(node), state));
        Some(place)
    }

    fn add_children(&mut self, folder: &Arc<dyn Node>, place: u32) {
        let Some(Ok(entries)) = of(folder).map(TmpNode::list) else {
            return;
        };
        for entry in entries {
            let Ok(node) = folder.lookup(&entry.name) else {
                continue;
            };
            let body = of(&node).map_or(TmpBody::Folder, body_of);
            let Some(child) = self.add(&node, body) else {
                continue;
            };
            if let Some((_, state)) = self.nodes.get_mut(child as usize) {
                state.names.push((place, entry.name));
            }
        }
    }

    /// The place of a node, which may have lost its name; `None` for one of another file system.
    pub fn place_of(&mut self, node: &Arc<dyn Node>) -> Option<u32> {
        let body = body_of(of(node)?);
        self.add(node, body)
    }

    /// All nodes, what they hold written to `store`.
    ///
    /// # Errors
    /// EOPNOTSUPP for a FIFO, or what the host says.
    pub fn finish(self, store: &mut dyn PageStore) -> Result<Vec<TmpNodeState>, Errno> {
        let mut states = Vec::new();
        for (node, mut state) in self.nodes {
            let tmp = of(&node).ok_or(Errno::ENODEV)?;
            match (&tmp.body, &mut state.body) {
                (Body::Fifo(_), _) => return Err(Errno::EOPNOTSUPP),
                (Body::File(_), TmpBody::File { size, extents }) => {
                    *size = File::size(tmp).unwrap_or(0);
                    *extents = store_file(tmp, *size, store)?;
                }
                _ => {}
            }
            states.push(state);
        }
        Ok(states)
    }
}

fn body_of(node: &TmpNode) -> TmpBody {
    match &node.body {
        Body::Folder(_) => TmpBody::Folder,
        Body::Link(target) => TmpBody::Link(target.clone()),
        Body::Socket => TmpBody::Socket,
        Body::File(_) | Body::Fifo(_) => TmpBody::File {
            size: 0,
            extents: Vec::new(),
        },
    }
}

fn store_file(file: &TmpNode, size: u64, store: &mut dyn PageStore) -> Result<Vec<Extent>, Errno> {
    let mut extents = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0u64;
    while at < size {
        piece.fill(0);
        let count = file.get(&mut piece, at)?;
        if count == 0 {
            break;
        }
        let pages = count.div_ceil(PAGE).saturating_mul(PAGE);
        let bytes = piece.get(..pages).unwrap_or_default();
        if bytes.iter().any(|byte| *byte != 0) {
            let offset = store.reserve(bytes.len() as u64, PAGE_SIZE, 0)?;
            store.write(offset, bytes)?;
            let len = bytes.len() as u64;
            extents.push(Extent { at, len, offset });
        }
        at = at.saturating_add(PIECE as u64);
    }
    Ok(extents)
}

/// The nodes that were brought back, by their place.
pub(crate) struct TmpRestored(Vec<Arc<dyn Node>>);

impl TmpRestored {
    /// Makes them in the empty trees of `vfs`.
    ///
    /// # Errors
    /// EINVAL for a state that cannot be, ENOSPC, or what the host says.
    pub fn new(
        vfs: &Vfs,
        states: &[TmpNodeState],
        snapshot: BorrowedFd<'_>,
    ) -> Result<Self, Errno> {
        let mut restored = Self(Vec::new());
        for state in states {
            let node = restored.make(vfs, state)?;
            if let TmpBody::File { size, extents } = &state.body {
                fill(&node, *size, extents, snapshot)?;
            }
            restored.0.push(node);
        }
        // Last, since names and bytes change times too.
        for (node, state) in restored.0.iter().zip(states) {
            node.set_mode(state.mode)?;
            let time = |(seconds, nanoseconds)| Timespec {
                seconds,
                nanoseconds,
            };
            let [atime, mtime, _] = state.times.map(time);
            node.set_times(Some(atime), Some(mtime))?;
        }
        Ok(restored)
    }

    /// The node of that place.
    pub fn node(&self, place: u32) -> Option<&Arc<dyn Node>> {
        self.0.get(place as usize)
    }

    fn make(&self, vfs: &Vfs, state: &TmpNodeState) -> Result<Arc<dyn Node>, Errno> {
        if let TmpBody::Root(number) = state.body {
            let path = TREES.get(number as usize).ok_or(Errno::EINVAL)?;
            let walked = vfs.walk(b"/", path.as_bytes(), true)?;
            return walked.node().cloned();
        }
        let target = match &state.body {
            TmpBody::Link(target) => Some(target.as_slice()),
            _ => None,
        };
        let is_folder = matches!(state.body, TmpBody::Folder);
        if is_folder != (state.mode & S_IFMT == S_IFDIR) {
            return Err(Errno::EINVAL);
        }
        let mut node: Option<Arc<dyn Node>> = None;
        for (folder, name) in &state.names {
            let folder = self.node(*folder).ok_or(Errno::EINVAL)?;
            match &node {
                None => node = Some(folder.create(name, state.mode, target)?),
                Some(node) => folder.link(name, node)?,
            }
        }
        match node {
            Some(node) => Ok(node),
            // Open, but without a name.
            None => {
                let root = self.0.first().ok_or(Errno::EINVAL)?;
                root.unnamed(state.mode & 0o7777)
            }
        }
    }
}

fn fill(
    node: &Arc<dyn Node>,
    size: u64,
    extents: &[Extent],
    snapshot: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let file = of(node).ok_or(Errno::EINVAL)?;
    file.truncate(size)?;
    for extent in extents {
        let len = usize::try_from(extent.len)
            .ok()
            .filter(|len| *len <= PIECE)
            .ok_or(Errno::EINVAL)?;
        let mut bytes = vec![0; len];
        let count = rustix::io::pread(snapshot, &mut bytes, extent.offset)
            .map_err(|error| Errno(error.raw_os_error()))?;
        let left = usize::try_from(size.saturating_sub(extent.at)).unwrap_or(usize::MAX);
        bytes.truncate(count.min(left));
        file.put(&bytes, extent.at)?;
    }
    Ok(())
}
