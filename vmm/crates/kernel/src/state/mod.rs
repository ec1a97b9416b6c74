//! A process as plain data, and back. Nothing of the guest runs meanwhile.

mod files;
mod reset;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_abi::Errno;
use vmm_memory::{Kind, MemoryState, PageMap, PageStore, SaveError};
use vmm_snapshot::{ProcessState, ThreadState};

pub use self::files::Files;
use crate::kernel::{Kernel, ThreadShared};
use crate::limits::ResourceLimits;
use crate::loader::GuestClock;
use crate::signal::LAST_SIGNAL;
use crate::timer::Alarm;

/// Where a function's files come to lie: other ones for each, and only once there is one.
const BUNDLE: &str = "/fn/";

/// Why a process cannot be written down. It can still be started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// It holds something that a snapshot does not know: this.
    Holds(String),
    Memory(SaveError),
    /// A file of its own cannot be read or written down.
    File(Errno),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds(what) => write!(f, "the program holds {what}"),
            Self::Memory(error) => error.fmt(f),
            Self::File(errno) => write!(f, "a file of the program: {errno}"),
        }
    }
}

impl std::error::Error for CaptureError {}

/// Why a written process cannot be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The state says what cannot be.
    Malformed(&'static str),
    Memory(SaveError),
    /// What it needs of the host or the image.
    Host(&'static str, Errno),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "its {what} cannot be"),
            Self::Memory(error) => error.fmt(f),
            Self::Host(what, errno) => write!(f, "{what}: {errno}"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Kernel {
    /// Everything about a process whose threads stand still, its pages written to `store`.
    ///
    /// # Errors
    /// [`CaptureError`]; the process is not to be used any more in any case.
    pub fn capture(
        &self,
        mut threads: Vec<ThreadState>,
        pages: &PageMap,
        store: &mut dyn PageStore,
    ) -> Result<(MemoryState, ProcessState), CaptureError> {
        for state in &mut threads {
            if let Some(thread) = self.thread(state.tid) {
                state.pending = thread.pending.lock().iter().collect();
            }
        }
        let alarms = self.alarms.lock();
        let alarm = alarms.real.as_ref().map(|alarm| alarm.state());
        let made = alarms.made_states();
        drop(alarms);
        let now = crate::clock::read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0);
        let before = self.processor_ns.load(Ordering::Relaxed);
        let mut process = ProcessState {
            threads,
            last_tid: self.last_tid(),
            alarm,
            alarms: made,
            started_ns: self.started_ns.load(Ordering::Relaxed),
            processor_ns: before.saturating_add(now),
            cwd: self.cwd.lock().clone(),
            umask: *self.umask.lock(),
            limits: self.limits.lock().all().to_vec(),
            program: self.program.get().cloned(),
            auxv: self.auxv.get().cloned(),
            environment: self.environment.get().cloned(),
            ..ProcessState::default()
        };
        let actions = self.actions.lock();
        process.actions = (1..=LAST_SIGNAL)
            .filter_map(|signal| actions.get(signal).ok())
            .collect();
        process.pending = actions.pending.iter().collect();
        drop(actions);
        files::capture(self, &mut process, store)?;
        let mut sources = files::Sources::new(&self.vfs);
        let memory = self
            .memory
            .save(pages, store, &mut |path, offset, buffer| {
                sources.read(path, offset, buffer)
            })
            .map_err(CaptureError::Memory)?;
        Ok((memory, process))
    }

    /// Does for a process like `memory` what can be done before the one that is to be brought back is known.
    ///
    /// # Errors
    /// [`RestoreError`]; the process is then of no use.
    pub fn make_ready(&self, memory: &MemoryState) -> Result<(), RestoreError> {
        let mut opened = files::Opened::new(&self.vfs);
        let image = |path: &str| !path.starts_with(BUNDLE);
        self.memory
            .make_ready(memory, &image, &mut |path, with| opened.open(path, with))
            .map_err(RestoreError::Memory)
    }

    /// Fills the memory of an empty process, or one that was made ready, which is most of the work; the rest is [`Kernel::bring_back_process`].
    ///
    /// # Errors
    /// [`RestoreError`]; the process is then of no use.
    pub fn bring_back_memory(
        &self,
        memory: &MemoryState,
        snapshot: BorrowedFd<'_>,
    ) -> Result<(), RestoreError> {
        let mut opened = files::Opened::new(&self.vfs);
        self.memory
            .restore(memory, snapshot, &mut |path, with| opened.open(path, with))
            .map_err(RestoreError::Memory)?;
        self.bring_back_clock(memory)
    }

    /// All but the memory: files, signals. The threads it answers are to be started ([`crate::Task::restored`]).
    ///
    /// # Errors
    /// [`RestoreError`]; the process is then of no use.
    pub fn bring_back_process(
        self: &Arc<Self>,
        process: &ProcessState,
        snapshot: BorrowedFd<'_>,
        streams: &Files,
    ) -> Result<Vec<Arc<ThreadShared>>, RestoreError> {
        files::bring_back(self, process, snapshot, streams)?;
        let signals = |errno| RestoreError::Host("signals", errno);
        let mut actions = self.actions.lock();
        for (signal, action) in (1..=LAST_SIGNAL).zip(&process.actions) {
            // Those of SIGKILL and SIGSTOP are as they always are.
            let _ = actions.set(signal, *action);
        }
        for info in &process.pending {
            actions.pending.push(*info).map_err(signals)?;
        }
        drop(actions);
        if process.limits != ResourceLimits::default().all() {
            self.board.limits_change();
        }
        *self.limits.lock() = process
            .limits
            .as_slice()
            .try_into()
            .map_err(|_| RestoreError::Malformed("list of limits"))?;
        *self.cwd.lock() = process.cwd.clone();
        *self.umask.lock() = process.umask;
        self.started_ns.store(process.started_ns, Ordering::Relaxed);
        let used = process.processor_ns;
        self.processor_ns.store(used, Ordering::Relaxed);
        if let Some(program) = &process.program {
            let _ = self.program.set(program.clone());
        }
        if let Some(auxv) = &process.auxv {
            let _ = self.auxv.set(auxv.clone());
        }
        if let Some(environment) = &process.environment {
            let _ = self.environment.set(environment.clone());
        }
        self.set_last_tid(process.last_tid);
        let threads = process.threads.iter().map(|state| self.put_thread(state));
        let threads = threads
            .collect::<Result<_, _>>()
            .map_err(|errno| RestoreError::Host("a thread", errno))?;
        self.bring_back_timers(process)
            .map_err(|errno| RestoreError::Host("a timer", errno))?;
        Ok(threads)
    }

    /// When threads are there: a timer may go off at once.
    fn bring_back_timers(self: &Arc<Self>, process: &ProcessState) -> Result<(), Errno> {
        if let Some(state) = process.alarm {
            Alarm::real(self)?.restore(state);
        }
        process
            .alarms
            .iter()
            .try_for_each(|state| Alarm::make_again(self, state))
    }

    /// The pages of the clocks are those of the monitor that runs the guest now.
    fn bring_back_clock(&self, memory: &MemoryState) -> Result<(), RestoreError> {
        let special = |name: &str| {
            let mut mappings = memory.mappings.iter();
            let found =
                mappings.find(|m| matches!(&m.vma.kind, Kind::Special(kind) if kind == name));
            found.map(|mapping| mapping.vma.start)
        };
        match (special(GuestClock::DATA), self.clock.get()) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(RestoreError::Host("the guest's clock", Errno::ENODEV)),
            (Some(address), Some(clock)) => clock
                .map_at(&self.memory, address)
                .map_err(|errno| RestoreError::Host("the guest's clock", errno)),
        }
    }
}

/// Opens a file of the image by path, for its pages.
fn open_named(vfs: &crate::vfs::Vfs, path: &str) -> Result<Arc<dyn crate::file::File>, Errno> {
    let walked = vfs.walk(b"/", path.as_bytes(), true)?;
    walked.node()?.open(libc::O_RDONLY.unsigned_abs())
}
