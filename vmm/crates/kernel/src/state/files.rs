//! Open files as plain data, and back.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_abi::{Errno, O_PATH};
use vmm_memory::PageStore;
use vmm_snapshot::{Description, FileState, PipeState, ProcessState, SocketState};

use super::{CaptureError, RestoreError, open_named};
use crate::epoll::Epoll;
use crate::eventfd::EventFd;
use crate::file::{File, OpenFile};
use crate::kernel::Kernel;
use crate::pipe::{PipeEnd, RestoredPipe};
use crate::signalfd::SignalFd;
use crate::socket::{RestoredSockets, Socket};
use crate::stream::HostStream;
use crate::syscalls::named_file;
use crate::timer::TimerFd;
use crate::vfs::{TmpCapture, TmpRestored, Vfs};

/// The streams that a guest is given, by the descriptor it first had each at.
pub type Files = BTreeMap<i32, Arc<HostStream>>;

/// Files of the image, opened when they are first asked for.
pub(super) struct Sources<'a> {
    vfs: &'a Vfs,
    open: HashMap<String, Option<Arc<dyn File>>>,
}

impl<'a> Sources<'a> {
    pub fn new(vfs: &'a Vfs) -> Self {
        let open = HashMap::new();
        Self { vfs, open }
    }

    /// Bytes of a file at an offset; `None` when there is none of that name.
    pub fn read(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let open = || open_named(self.vfs, path).ok();
        let file = self.open.entry(path.to_owned()).or_insert_with(open);
        // A file of the private file system may change; its pages are kept with the memory.
        let file = file.as_ref().filter(|file| !is_tmp(file.as_ref()))?;
        let mut done = 0usize;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.get(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(_) => return None,
            }
        }
        Some(done)
    }
}

/// The same for mapping them.
pub(super) struct Opened<'a> {
    vfs: &'a Vfs,
    open: HashMap<String, Arc<dyn File>>,
}

impl<'a> Opened<'a> {
    pub fn new(vfs: &'a Vfs) -> Self {
        let open = HashMap::new();
        Self { vfs, open }
    }

    /// Calls `with` with the file of that path.
    pub fn open(
        &mut self,
        path: &str,
        with: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if !self.open.contains_key(path) {
            let file = open_named(self.vfs, path)?;
            self.open.insert(path.to_owned(), file);
        }
        let file = self.open.get(path).ok_or(Errno::ENOENT)?;
        with(file.host_fd().ok_or(Errno::ENODEV)?)
    }
}

fn is_tmp(file: &dyn File) -> bool {
    TmpCapture::holds(file)
}

fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// All descriptions and sockets that can be reached: from descriptors, from epoll sets, and on their way through sockets.
#[derive(Default)]
struct Reached {
    open: Vec<Arc<OpenFile>>,
    sockets: Vec<Arc<OpenSocket>>,
    places: HashMap<*const OpenFile, u32>,
    socket_places: HashMap<usize, u32>,
}

/// A socket, be it open or waiting to be accepted.
type OpenSocket = dyn File;

fn as_socket(file: &dyn File) -> Option<&Socket> {
    file.as_any().downcast_ref()
}

impl Reached {
    fn add(&mut self, file: &Arc<OpenFile>) -> u32 {
        let next = index(self.open.len());
        let place = *self.places.entry(Arc::as_ptr(file)).or_insert(next);
        if place == next {
            self.open.push(Arc::clone(file));
        }
        place
    }

    fn add_socket(&mut self, file: &Arc<OpenSocket>) {
        let Some(socket) = as_socket(file.as_ref()) else {
            return;
        };
        let next = index(self.sockets.len());
        let place = *self.socket_places.entry(socket.identity()).or_insert(next);
        if place == next {
            self.sockets.push(Arc::clone(file));
        }
    }

    /// Follows what was added to all that hangs on it.
    fn follow(&mut self) {
        let (mut files, mut sockets) = (0usize, 0usize);
        loop {
            if let Some(open) = self.open.get(files).cloned() {
                files = files.saturating_add(1);
                self.add_socket(&open.file);
                let epoll = open.file.as_any().downcast_ref::<Epoll>();
                for (watched, _) in epoll.iter().flat_map(|epoll| epoll.watched()) {
                    self.add(&watched);
                }
            } else if let Some(file) = self.sockets.get(sockets).cloned() {
                sockets = sockets.saturating_add(1);
                let Some(socket) = as_socket(file.as_ref()) else {
                    continue;
                };
                for waiting in socket.waiting() {
                    self.add_socket(&(waiting as Arc<OpenSocket>));
                }
                for passed in socket.in_flight() {
                    self.add(&passed);
                }
            } else {
                return;
            }
        }
    }

    fn place(&self, file: &Arc<OpenFile>) -> Option<u32> {
        self.places.get(&Arc::as_ptr(file)).copied()
    }

    fn socket_states(&self) -> Option<Vec<SocketState>> {
        let place = |identity| self.socket_places.get(&identity).copied();
        let sockets = self.sockets.iter();
        let state = |file: &Arc<OpenSocket>| {
            as_socket(file.as_ref())?.state(&place, &|file| self.place(file))
        };
        sockets.map(state).collect()
    }
}

/// Writes down descriptors, what they stand for, and the private file systems.
pub(super) fn capture(
    kernel: &Kernel,
    process: &mut ProcessState,
    store: &mut dyn PageStore,
) -> Result<(), CaptureError> {
    let files = kernel.files.lock();
    process.descriptor_limit = files.limit() as u64;
    let mut reached = Reached::default();
    for (fd, file, cloexec) in files.entries() {
        let place = reached.add(file);
        process.descriptors.push((fd, place, cloexec));
    }
    drop(files);
    reached.follow();
    let mut tmp = TmpCapture::of(&kernel.vfs);
    let mut pipes: Vec<Arc<OpenFile>> = Vec::new();
    for file in &reached.open {
        let state = file_state(file, &reached, &mut pipes, &mut tmp)?;
        process.descriptions.push(Description {
            path: file.path.clone(),
            flags: file.flags(),
            position: *file.position.lock(),
            file: state,
            locks: file.lock_states(),
        });
    }
    for open in &pipes {
        let Some(end) = end_of(open) else { continue };
        let mut state = end.state();
        state.fifo = open.node.as_ref().and_then(|node| tmp.place_of(node));
        process.pipes.push(state);
    }
    let sockets = reached.socket_states();
    process.sockets = sockets
        .ok_or_else(|| CaptureError::Holds("a socket that is only in flight to itself".into()))?;
    process.next_socket_ino = kernel.network.next_ino();
    process.tmp = tmp.finish(store).map_err(CaptureError::File)?;
    Ok(())
}

fn end_of(open: &OpenFile) -> Option<&PipeEnd> {
    open.file.as_any().downcast_ref()
}

fn file_state(
    open: &Arc<OpenFile>,
    reached: &Reached,
    pipes: &mut Vec<Arc<OpenFile>>,
    tmp: &mut TmpCapture,
) -> Result<FileState, CaptureError> {
    let file = open.file.as_any();
    if let Some(stream) = file.downcast_ref::<HostStream>() {
        return Ok(FileState::Stream(stream.number()));
    }
    if let Some(event) = file.downcast_ref::<EventFd>() {
        let (count, semaphore) = event.state();
        return Ok(FileState::Event { count, semaphore });
    }
    if let Some(timer) = file.downcast_ref::<TimerFd>() {
        let (clock, timer) = timer.state();
        return Ok(FileState::Timer { clock, timer });
    }
    if let Some(signals) = file.downcast_ref::<SignalFd>() {
        return Ok(FileState::Signals(signals.mask()));
    }
    if let Some(end) = file.downcast_ref::<PipeEnd>() {
        let known = pipes
            .iter()
            .position(|other| end_of(other).is_some_and(|other| other.same_pipe(end)));
        let place = known.unwrap_or_else(|| {
            pipes.push(Arc::clone(open));
            pipes.len().saturating_sub(1)
        });
        let (reads, writes) = end.directions();
        return Ok(FileState::Pipe {
            pipe: index(place),
            reads,
            writes,
        });
    }
    if let Some(epoll) = file.downcast_ref::<Epoll>() {
        let watched = epoll.watched().into_iter().filter_map(|(open, mut entry)| {
            entry.description = reached.place(&open)?;
            Some(entry)
        });
        return Ok(FileState::Epoll(watched.collect()));
    }
    if let Some(socket) = file.downcast_ref::<Socket>() {
        let place = reached.socket_places.get(&socket.identity());
        let unknown = || CaptureError::Holds("a socket that is not known".into());
        return place.copied().map(FileState::Socket).ok_or_else(unknown);
    }
    if let Some(node) = open.node.as_ref().and_then(|node| tmp.place_of(node)) {
        return Ok(FileState::Tmp(node));
    }
    match open.node {
        Some(_) => Ok(FileState::Named),
        None => Err(CaptureError::Holds(format!("{} open", open.path))),
    }
}

/// Opens everything again.
pub(super) fn bring_back(
    kernel: &Arc<Kernel>,
    process: &ProcessState,
    snapshot: BorrowedFd<'_>,
    streams: &Files,
) -> Result<(), RestoreError> {
    let tmp = TmpRestored::new(&kernel.vfs, &process.tmp, snapshot)
        .map_err(|errno| RestoreError::Host("the private files", errno))?;
    let pipe = |state: &PipeState| {
        let pipe = match state.fifo {
            Some(place) => tmp.pipe(place, state)?,
            None => RestoredPipe::new(state),
        };
        Some((pipe, state.fifo))
    };
    let pipes = process.pipes.iter().map(pipe);
    let pipes: Vec<_> = pipes
        .collect::<Option<_>>()
        .ok_or(RestoreError::Malformed("list of pipes"))?;
    let failed = |errno| RestoreError::Host("a socket", errno);
    let sockets = RestoredSockets::new(&process.sockets, &kernel.network).map_err(failed)?;
    let parts = Parts {
        pipes: &pipes,
        sockets: &sockets,
        tmp: &tmp,
        streams,
    };
    let mut open = Vec::new();
    for description in &process.descriptions {
        let file = file_of(kernel, description, &parts)
            .map_err(|errno| RestoreError::Host("an open file", errno))?;
        *file.position.lock() = description.position;
        open.push(file);
    }
    for (description, file) in process.descriptions.iter().zip(&open) {
        file.lock_again(&kernel.locks, &description.locks)
            .map_err(|errno| RestoreError::Host("a lock of a file", errno))?;
    }
    sockets.join(&open, &kernel.network).map_err(failed)?;
    kernel.network.set_next_ino(process.next_socket_ino);
    for (description, set) in process.descriptions.iter().zip(&open) {
        let FileState::Epoll(entries) = &description.file else {
            continue;
        };
        let Some(epoll) = set.file.as_any().downcast_ref::<Epoll>() else {
            continue;
        };
        for entry in entries {
            let watched = open.get(entry.description as usize);
            let watched = watched.ok_or(RestoreError::Malformed("epoll set"))?;
            epoll
                .watch_again(watched, entry)
                .map_err(|errno| RestoreError::Host("an epoll set", errno))?;
        }
    }
    let mut files = kernel.files.lock();
    files.set_limit(usize::try_from(process.descriptor_limit).unwrap_or(usize::MAX));
    for (fd, description, cloexec) in &process.descriptors {
        let file = open.get(*description as usize);
        let file = file.ok_or(RestoreError::Malformed("list of descriptors"))?;
        files
            .put(*fd, Arc::clone(file), *cloexec)
            .map_err(|errno| RestoreError::Host("a descriptor", errno))?;
    }
    Ok(())
}

/// What descriptions are made of.
struct Parts<'a> {
    /// Each with the node that it is the FIFO of.
    pipes: &'a [(RestoredPipe, Option<u32>)],
    sockets: &'a RestoredSockets<'a>,
    tmp: &'a TmpRestored,
    streams: &'a Files,
}

fn file_of(
    kernel: &Arc<Kernel>,
    description: &Description,
    parts: &Parts<'_>,
) -> Result<Arc<OpenFile>, Errno> {
    let (path, flags) = (description.path.clone(), description.flags);
    let file: Arc<dyn File> = match &description.file {
        FileState::Stream(number) => {
            let stream = parts.streams.get(number).ok_or(Errno::EBADF)?;
            Arc::clone(stream) as Arc<dyn File>
        }
        FileState::Event { count, semaphore } => EventFd::new(*count, *semaphore),
        FileState::Timer { clock, timer } => TimerFd::restored(*clock, *timer)?,
        FileState::Signals(mask) => SignalFd::new(*mask, kernel),
        FileState::Pipe {
            pipe: place,
            reads,
            writes,
        } => {
            let pipe = parts.pipes.get(*place as usize);
            let (pipe, fifo) = pipe.ok_or(Errno::EBADF)?;
            let node = fifo.and_then(|place| parts.tmp.node(place)).cloned();
            let end = pipe.end(*reads, *writes);
            return Ok(OpenFile::with_node(end, node, path, flags));
        }
        FileState::Socket(place) => {
            let socket = parts.sockets.get(*place).ok_or(Errno::EBADF)?;
            Arc::clone(socket) as Arc<dyn File>
        }
        FileState::Epoll(_) => Arc::new(Epoll::new(kernel.board.clone())),
        FileState::Tmp(place) => {
            let node = parts.tmp.node(*place).ok_or(Errno::ENOENT)?;
            return reopened(Arc::clone(node), path, flags);
        }
        FileState::Named => {
            let walked = kernel.vfs.walk(b"/", path.as_bytes(), true)?;
            return reopened(Arc::clone(walked.node()?), path, flags);
        }
    };
    Ok(OpenFile::new(file, path, flags))
}

fn reopened(
    node: Arc<dyn crate::vfs::Node>,
    path: String,
    flags: u32,
) -> Result<Arc<OpenFile>, Errno> {
    let file = if flags & O_PATH == 0 {
        node.open(flags)?
    } else {
        named_file(&node)
    };
    Ok(OpenFile::with_node(file, Some(node), path, flags))
}
