//! Open files as plain data, and back.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_abi::{Errno, O_PATH};
use vmm_memory::PageStore;
use vmm_snapshot::{Description, FileState, ProcessState};

use super::{CaptureError, RestoreError, open_named};
use crate::epoll::Epoll;
use crate::eventfd::EventFd;
use crate::file::{File, OpenFile};
use crate::kernel::Kernel;
use crate::pipe::{PipeEnd, RestoredPipe};
use crate::signalfd::SignalFd;
use crate::socket::Socket;
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

/// Writes down descriptors, what they stand for, and the private file systems.
pub(super) fn capture(
    kernel: &Kernel,
    process: &mut ProcessState,
    store: &mut dyn PageStore,
) -> Result<(), CaptureError> {
    let files = kernel.files.lock();
    process.descriptor_limit = files.limit() as u64;
    let mut open: Vec<Arc<OpenFile>> = Vec::new();
    for (fd, file, cloexec) in files.entries() {
        let known = open.iter().position(|other| Arc::ptr_eq(other, file));
        let place = known.unwrap_or_else(|| {
            open.push(Arc::clone(file));
            open.len().saturating_sub(1)
        });
        process.descriptors.push((fd, index(place), cloexec));
    }
    drop(files);
    let mut tmp = TmpCapture::of(&kernel.vfs);
    let mut pipes: Vec<Arc<OpenFile>> = Vec::new();
    for file in &open {
        let state = file_state(file, &open, &mut pipes, &mut tmp)?;
        process.descriptions.push(Description {
            path: file.path.clone(),
            flags: file.flags(),
            position: *file.position.lock(),
            file: state,
        });
    }
    let ends = pipes.iter().filter_map(|open| end_of(open));
    process.pipes = ends.map(PipeEnd::state).collect();
    process.tmp = tmp.finish(store).map_err(CaptureError::File)?;
    Ok(())
}

fn end_of(open: &OpenFile) -> Option<&PipeEnd> {
    open.file.as_any().downcast_ref()
}

fn file_state(
    open: &Arc<OpenFile>,
    all: &[Arc<OpenFile>],
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
        if open.node.is_some() {
            return Err(CaptureError::Holds(format!("the FIFO {} open", open.path)));
        }
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
        let mut entries = Vec::new();
        for (watched, mut entry) in epoll.watched() {
            let place = all.iter().position(|other| Arc::ptr_eq(other, &watched));
            let place = place.ok_or_else(|| CaptureError::Holds("a file in flight".into()))?;
            entry.description = index(place);
            entries.push(entry);
        }
        return Ok(FileState::Epoll(entries));
    }
    if file.is::<Socket>() {
        return Err(CaptureError::Holds("a socket open".into()));
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
    let pipes: Vec<_> = process.pipes.iter().map(RestoredPipe::new).collect();
    let mut open = Vec::new();
    for description in &process.descriptions {
        let file = file_of(kernel, description, &pipes, &tmp, streams)
            .map_err(|errno| RestoreError::Host("an open file", errno))?;
        *file.position.lock() = description.position;
        open.push(file);
    }
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

fn file_of(
    kernel: &Arc<Kernel>,
    description: &Description,
    pipes: &[RestoredPipe],
    tmp: &TmpRestored,
    streams: &Files,
) -> Result<Arc<OpenFile>, Errno> {
    let (path, flags) = (description.path.clone(), description.flags);
    let file: Arc<dyn File> = match &description.file {
        FileState::Stream(number) => {
            let stream = streams.get(number).ok_or(Errno::EBADF)?;
            Arc::clone(stream) as Arc<dyn File>
        }
        FileState::Event { count, semaphore } => EventFd::new(*count, *semaphore),
        FileState::Timer { clock, timer } => TimerFd::restored(*clock, *timer)?,
        FileState::Signals(mask) => SignalFd::new(*mask, kernel),
        FileState::Pipe {
            pipe,
            reads,
            writes,
        } => {
            let pipe = pipes.get(*pipe as usize).ok_or(Errno::EBADF)?;
            pipe.end(*reads, *writes)
        }
        FileState::Epoll(_) => Arc::new(Epoll::default()),
        FileState::Tmp(place) => {
            let node = tmp.node(*place).ok_or(Errno::ENOENT)?;
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
