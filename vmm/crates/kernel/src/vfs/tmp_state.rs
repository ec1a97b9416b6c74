//! The private file systems as plain data, and back.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_abi::{Errno, PAGE_SIZE, S_IFDIR, S_IFMT, Timespec};
use vmm_memory::{Extent, PageStore};
use vmm_snapshot::{PipeState, TmpBody, TmpNodeState};

use super::tmp::{Body, TmpNode};
use super::{Node, Vfs};
use crate::file::File;
use crate::pipe::RestoredPipe;

/// Where the trees are mounted, by the number of the tree.
const TREES: [&str; 2] = ["/tmp", "/dev/shm"];
/// Bytes that are copied at once.
const PIECE: usize = 64 << 10;
/// F_SEAL_SEAL alone: what a file shows that never could have seals.
const SEALED: u32 = 1;
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
            ino: stat.ino,
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
    /// What the host says.
    pub fn finish(self, store: &mut dyn PageStore) -> Result<Vec<TmpNodeState>, Errno> {
        let mut states = Vec::new();
        for (node, mut state) in self.nodes {
            let tmp = of(&node).ok_or(Errno::ENODEV)?;
            if let TmpBody::File {
                size,
                extents,
                seals,
            } = &mut state.body
            {
                *size = File::size(tmp).unwrap_or(0);
                *seals = tmp.seals(None)?;
                *extents = store_file(tmp, *size, store)?;
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
        Body::Fifo(_) => TmpBody::Fifo,
        Body::File(_) => TmpBody::File {
            size: 0,
            extents: Vec::new(),
            seals: 0,
        },
    }
}

/// Writes the pages that hold something; what lies between them stays a hole.
fn store_file(file: &TmpNode, size: u64, store: &mut dyn PageStore) -> Result<Vec<Extent>, Errno> {
    let mut extents = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0u64;
    while at < size {
        at = match file.seek_data(at, false) {
            Ok(data) => data.saturating_sub(data % PAGE_SIZE),
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno),
        };
        piece.fill(0);
        if file.get(&mut piece, at)? == 0 {
            break;
        }
        for run in runs(&piece) {
            let place = at.saturating_add(run.start as u64);
            let bytes = piece.get(run).unwrap_or_default();
            let len = bytes.len() as u64;
            let offset = store.reserve(len, PAGE_SIZE, 0)?;
            store.write(offset, bytes)?;
            let at = place;
            extents.push(Extent { at, len, offset });
        }
        at = at.saturating_add(PIECE as u64);
    }
    Ok(extents)
}

/// Where pages lie that are not zero.
fn runs(piece: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, page) in piece.chunks(PAGE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let start = index.saturating_mul(PAGE);
        let end = start.saturating_add(page.len());
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
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
        let mut last_ino = 0;
        for state in states {
            let node = restored.make(vfs, state)?;
            if let TmpBody::File {
                size,
                extents,
                seals,
            } = &state.body
            {
                fill(&node, *size, extents, snapshot)?;
                seal(&node, *seals)?;
            }
            last_ino = state.ino.max(last_ino);
            restored.0.push(node);
        }
        // Last, since names and bytes change times too.
        for (node, state) in restored.0.iter().zip(states) {
            node.set_mode(state.mode)?;
            let time = |(seconds, nanoseconds)| Timespec {
                seconds,
                nanoseconds,
            };
            let tmp = of(node).ok_or(Errno::EINVAL)?;
            tmp.set_all_times(state.times.map(time));
            tmp.set_next_ino(last_ino.saturating_add(1).max(tmp.next_ino()));
        }
        Ok(restored)
    }

    /// The pipe of the FIFO of that place, with what is in it.
    pub fn pipe(&self, place: u32, state: &PipeState) -> Option<RestoredPipe> {
        match &of(self.node(place)?)?.body {
            Body::Fifo(fifo) => Some(RestoredPipe::of_fifo(fifo, state)),
            _ => None,
        }
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
        let root = self.0.first().ok_or(Errno::EINVAL)?;
        // It keeps its number, by which programs tell files apart.
        of(root).ok_or(Errno::EINVAL)?.set_next_ino(state.ino);
        let mut node = match state.body {
            TmpBody::File { seals, .. } => {
                Some(root.memory_file(state.mode & 0o7777, seals != SEALED)?)
            }
            _ => None,
        };
        for (folder, name) in &state.names {
            let folder = self.node(*folder).ok_or(Errno::EINVAL)?;
            match &node {
                None => node = Some(folder.create(name, state.mode, target)?),
                Some(node) => folder.link(name, node)?,
            }
        }
        match node {
            Some(node) => Ok(node),
            None => removed(root, state.mode, target),
        }
    }
}

/// A node that is open, but without a name.
fn removed(root: &Arc<dyn Node>, mode: u32, target: Option<&[u8]>) -> Result<Arc<dyn Node>, Errno> {
    let names = (0u32..=u32::MAX).map(|number| format!(".removed-{number}").into_bytes());
    let mut free = names.filter(|name| root.lookup(name).is_err());
    let name = free.next().ok_or(Errno::ENOSPC)?;
    let node = root.create(&name, mode, target)?;
    root.remove(&name, mode & S_IFMT == S_IFDIR)?;
    Ok(node)
}

/// Sets the seals of a memory file that can have any.
fn seal(node: &Arc<dyn Node>, seals: u32) -> Result<(), Errno> {
    if seals == 0 || seals == SEALED {
        return Ok(());
    }
    let file = of(node).ok_or(Errno::EINVAL)?;
    File::seals(file, Some(seals)).map(drop)
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
