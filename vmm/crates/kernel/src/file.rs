use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use vmm_abi::{
    EPOLLIN, EPOLLOUT, Errno, Iovec, O_ACCMODE, O_NONBLOCK, O_PATH, O_WRONLY, S_IFDIR, S_IFMT, Stat,
};
use vmm_memory::AddressSpace;

use vmm_snapshot::LockState;

use crate::inside::Board;
use crate::locks::{Locks, Range};
use crate::stream::HostStream;
use crate::vfs::{DirEntry, Node};
use crate::wait::WaitQueue;

/// What lies behind an open file. All methods may be called by several threads at once; none ever
/// blocks: what would is EAGAIN, and [`File::queue`] says where a change is told.
pub trait File: Send + Sync {
    /// Attributes, as fstat(2) gives them.
    ///
    /// # Errors
    /// What the backing says.
    fn stat(&self) -> Result<Stat, Errno>;

    /// Reads into guest memory; `offset` is that of a seekable file and is to be ignored by others.
    ///
    /// # Errors
    /// EAGAIN when nothing is there yet, EFAULT, or what the backing says.
    fn read(&self, memory: &AddressSpace, to: &[Iovec], offset: u64) -> Result<u64, Errno> {
        let _ = (memory, to, offset);
        Err(Errno::EINVAL)
    }

    /// Writes from guest memory.
    ///
    /// # Errors
    /// EAGAIN when there is no room yet, EFAULT, EPIPE, or what the backing says.
    fn write(&self, memory: &AddressSpace, from: &[Iovec], offset: u64) -> Result<u64, Errno> {
        let _ = (memory, from, offset);
        Err(Errno::EINVAL)
    }

    /// Bytes in a seekable file, `None` for one without positions.
    fn size(&self) -> Option<u64> {
        None
    }

    /// Entries of a directory.
    ///
    /// # Errors
    /// ENOTDIR for anything else.
    fn entries(&self) -> Result<Vec<DirEntry>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// The host file to map, for files whose pages can be mapped.
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether mapping it gives zeroed memory (/dev/zero).
    fn is_zero(&self) -> bool {
        false
    }

    /// Changes the size.
    ///
    /// # Errors
    /// EINVAL for files that have none.
    fn truncate(&self, size: u64) -> Result<(), Errno> {
        let _ = size;
        Err(Errno::EINVAL)
    }

    /// Writes bytes of the monitor, as [`File::write`] does those of the guest (sendfile(2), splice(2)).
    ///
    /// # Errors
    /// EINVAL for files that cannot be a target of those.
    fn put(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let _ = (bytes, offset);
        Err(Errno::EINVAL)
    }

    /// Reads into memory of the monitor.
    ///
    /// # Errors
    /// EINVAL for files that cannot be a source of sendfile(2).
    fn get(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let _ = (bytes, offset);
        Err(Errno::EINVAL)
    }

    /// fallocate(2), with a mode of FALLOC_FL_* bits.
    ///
    /// # Errors
    /// ENODEV for files without room to allocate, ENOSPC, EOPNOTSUPP for a mode that is not served.
    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let _ = (mode, offset, len);
        Err(Errno::ENODEV)
    }

    /// The next data, or the next hole, at or after `offset` (lseek(2)); all of a file is data unless it says
    /// otherwise.
    ///
    /// # Errors
    /// ENXIO at or after the end.
    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64, Errno> {
        let size = self.size().ok_or(Errno::ESPIPE)?;
        match offset < size {
            true if hole => Ok(size),
            true => Ok(offset),
            false => Err(Errno::ENXIO),
        }
    }

    /// The seals of a memory file (F_GET_SEALS), after adding some.
    ///
    /// # Errors
    /// EINVAL for anything else.
    fn seals(&self, add: Option<u32>) -> Result<u32, Errno> {
        let _ = add;
        Err(Errno::EINVAL)
    }

    /// Which of the EPOLL* events hold now.
    fn readiness(&self) -> u32 {
        EPOLLIN | EPOLLOUT
    }

    /// As [`File::readiness`], for one who cares for no other events than these, EPOLLERR and EPOLLHUP; others may be missing.
    fn readiness_of(&self, events: u32) -> u32 {
        let _ = events;
        self.readiness()
    }

    /// Whether whatever makes one of these events, EPOLLERR or EPOLLHUP hold is told to the queue, unarmed, before it goes on; of the inlet
    /// ([`File::is_inlet`]) the board tells the rest.
    fn tells_changes(&self, events: u32) -> bool {
        let _ = events;
        false
    }

    /// Whether it is the socket that guest code may read by itself.
    fn is_inlet(&self) -> bool {
        false
    }

    /// Where a change of [`File::readiness`] is told; `None` for files that are always ready.
    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        None
    }

    /// Called after a waiter registered with [`File::queue`], for backings that must ask the host to
    /// be told.
    fn arm(&self, events: u32) {
        let _ = events;
    }

    /// ioctl(2); the argument is a guest address or a number.
    ///
    /// # Errors
    /// ENOTTY for what the file does not know.
    fn ioctl(&self, memory: &AddressSpace, request: u32, argument: u64) -> Result<u64, Errno> {
        let _ = (memory, request, argument);
        Err(Errno::ENOTTY)
    }

    /// The file as the type it is, for calls that only one type serves (epoll_ctl, bind ...).
    fn as_any(&self) -> &dyn std::any::Any;
}

/// An open file description (open(2)): what dup(2) shares.
pub struct OpenFile {
    pub file: Arc<dyn File>,
    /// Path it was opened by, or a name such as `pipe:[3]`; shown in /proc/self/fd.
    pub path: String,
    /// What it was opened by, for files that have a place in the tree.
    pub node: Option<Arc<dyn Node>>,
    /// Entries of a folder, as they were when reading them began.
    pub listing: Mutex<Option<Arc<Vec<DirEntry>>>>,
    pub position: Mutex<u64>,
    flags: AtomicU32,
    /// Tells descriptions apart, for their locks.
    id: u64,
    /// Where it may hold locks.
    locks: OnceLock<Arc<Locks>>,
}

/// Descriptions that there are in this process.
static LIVE: AtomicU64 = AtomicU64::new(0);

impl Drop for OpenFile {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        if let Some(locks) = self.locks.get() {
            locks.release(self.id);
        }
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({})", self.path)
    }
}

impl OpenFile {
    /// A description at position 0 with the given O_* status flags.
    #[must_use]
    pub fn new(file: Arc<dyn File>, path: String, flags: u32) -> Arc<Self> {
        Self::with_node(file, None, path, flags)
    }

    /// As [`OpenFile::new`], of a node.
    #[must_use]
    pub fn with_node(
        file: Arc<dyn File>,
        node: Option<Arc<dyn Node>>,
        path: String,
        flags: u32,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        LIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            locks: OnceLock::new(),
            file,
            path,
            node,
            listing: Mutex::new(None),
            position: Mutex::new(0),
            flags: AtomicU32::new(flags),
        })
    }

    /// How many descriptions there are in this process, also those that nothing can reach any more.
    #[must_use]
    pub fn live() -> u64 {
        LIVE.load(Ordering::Relaxed)
    }

    /// The owner of its locks in `locks`, which are given up with it.
    pub fn keep_locks_in(&self, locks: &Arc<Locks>) -> u64 {
        self.locks.get_or_init(|| Arc::clone(locks));
        self.id
    }

    /// The locks that it holds.
    #[must_use]
    pub fn lock_states(&self) -> Vec<LockState> {
        let Some(locks) = self.locks.get() else {
            return Vec::new();
        };
        let (whole, ranges) = locks.held_by(self.id);
        let whole = whole.map(|exclusive| LockState::Whole { exclusive });
        let ranges = ranges.iter().map(|range| LockState::Range {
            first: range.first,
            last: range.last,
            exclusive: range.exclusive,
        });
        whole.into_iter().chain(ranges).collect()
    }

    /// Takes locks that a former description held.
    ///
    /// # Errors
    /// EAGAIN where another holds one, ENOLCK for too many, or what the file says.
    pub fn lock_again(&self, locks: &Arc<Locks>, states: &[LockState]) -> Result<(), Errno> {
        if states.is_empty() {
            return Ok(());
        }
        let stat = self.file.stat()?;
        let (file, owner) = ((stat.dev, stat.ino), self.keep_locks_in(locks));
        for state in states {
            match *state {
                LockState::Whole { exclusive } => {
                    locks.lock_whole(file, owner, Some(exclusive))?;
                }
                LockState::Range {
                    first,
                    last,
                    exclusive,
                } => {
                    let range = Range {
                        first,
                        last,
                        exclusive,
                    };
                    locks.lock_range(file, owner, range)?;
                }
            }
        }
        Ok(())
    }

    /// Whether it only names a file (O_PATH).
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.flags() & O_PATH != 0
    }

    /// Where a folder is now, absolute and without links.
    ///
    /// # Errors
    /// ENOTDIR, ENOENT when it has been removed.
    pub fn folder_path(&self) -> Result<Vec<u8>, Errno> {
        if self.file.stat()?.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let now = self.node.as_ref().and_then(|node| node.path_now());
        now.unwrap_or_else(|| Ok(self.path.as_bytes().to_vec()))
    }

    /// Status flags and access mode.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the flags in `mask`.
    pub fn set_flags(&self, mask: u32, flags: u32) {
        let change = |old: u32| Some((old & !mask) | (flags & mask));
        let _ = self
            .flags
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Whether O_NONBLOCK is set.
    #[must_use]
    pub fn nonblocking(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }

    /// Whether it may be read.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.flags() & O_ACCMODE != O_WRONLY
    }

    /// Whether it may be written.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.flags() & O_ACCMODE != 0
    }
}

/// The descriptors of a process.
#[derive(Debug, Default)]
pub struct FdTable {
    slots: Vec<Option<(Arc<OpenFile>, bool)>>,
    limit: Option<usize>,
    board: Board,
}

/// Most descriptors (RLIMIT_NOFILE).
pub const MAX_FDS: usize = 4096;

impl FdTable {
    pub(crate) fn new(board: Board) -> Self {
        Self {
            board,
            ..Self::default()
        }
    }

    /// The description behind a descriptor.
    ///
    /// # Errors
    /// EBADF when it is not open.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.entry(fd).map(|(open, _)| Arc::clone(open))
    }

    fn entry(&self, fd: i32) -> Result<&(Arc<OpenFile>, bool), Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.slots
            .get(index)
            .and_then(Option::as_ref)
            .ok_or(Errno::EBADF)
    }

    /// Whether FD_CLOEXEC is set.
    ///
    /// # Errors
    /// EBADF when it is not open.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool, Errno> {
        self.entry(fd).map(|(_, cloexec)| *cloexec)
    }

    /// Sets or clears FD_CLOEXEC.
    ///
    /// # Errors
    /// EBADF when it is not open.
    pub fn set_close_on_exec(&mut self, fd: i32, value: bool) -> Result<(), Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slot = self
            .slots
            .get_mut(index)
            .and_then(Option::as_mut)
            .ok_or(Errno::EBADF)?;
        slot.1 = value;
        Ok(())
    }

    /// One more than the highest descriptor that may be opened (RLIMIT_NOFILE).
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(MAX_FDS)
    }

    /// Lowers or raises it, to [`MAX_FDS`] at most; what is open stays open.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = Some(limit.min(MAX_FDS));
    }

    /// Puts a description at the lowest free descriptor from `lowest` on.
    ///
    /// # Errors
    /// EMFILE when all are taken, EINVAL for a `lowest` beyond them.
    pub fn add(&mut self, open: Arc<OpenFile>, cloexec: bool, lowest: usize) -> Result<i32, Errno> {
        if lowest >= self.limit() {
            return Err(Errno::EINVAL);
        }
        let free = |index: &usize| !matches!(self.slots.get(*index), Some(Some(_)));
        let index = (lowest..self.limit()).find(free).ok_or(Errno::EMFILE)?;
        let fd = i32::try_from(index).map_err(|_| Errno::EMFILE)?;
        self.put(fd, open, cloexec)?;
        Ok(fd)
    }

    /// Puts a description at exactly `fd`, closing what was there.
    ///
    /// # Errors
    /// EBADF for a number out of range.
    pub fn put(&mut self, fd: i32, open: Arc<OpenFile>, cloexec: bool) -> Result<(), Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index >= self.limit() {
            return Err(Errno::EBADF);
        }
        if self.slots.len() <= index {
            self.slots.resize_with(index.saturating_add(1), || None);
            self.board.descriptors(self.slots.len());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            if slot.is_some() {
                self.board.descriptor_goes(fd);
            }
            let stream = open.file.as_any().downcast_ref::<HostStream>();
            let joins = |stream: &HostStream| open.readable() && stream.join(&self.board);
            if stream.is_some_and(joins) {
                self.board.inlet_at(fd);
            }
            *slot = Some((open, cloexec));
        }
        Ok(())
    }

    /// Takes a descriptor away.
    ///
    /// # Errors
    /// EBADF when it is not open.
    pub fn close(&mut self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.board.descriptor_goes(fd);
        let slot = self
            .slots
            .get_mut(index)
            .and_then(Option::take)
            .ok_or(Errno::EBADF)?;
        Ok(slot.0)
    }

    /// All open descriptors with FD_CLOEXEC, lowest first.
    pub fn entries(&self) -> impl Iterator<Item = (i32, &Arc<OpenFile>, bool)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let (file, cloexec) = slot.as_ref()?;
            Some((i32::try_from(index).ok()?, file, *cloexec))
        })
    }

    /// All open descriptors, lowest first.
    #[must_use]
    pub fn list(&self) -> Vec<(i32, Arc<OpenFile>)> {
        let open = |(index, slot): (usize, &Option<(Arc<OpenFile>, bool)>)| {
            let (file, _) = slot.as_ref()?;
            Some((i32::try_from(index).ok()?, Arc::clone(file)))
        };
        self.slots.iter().enumerate().filter_map(open).collect()
    }
}
